"""One 8254 counter that really counts, a clock at a time."""


class Counter:
    """Modes 0, 2, 3 (even counts) and 4, gate included."""

    def __init__(self, mode: int, count: int) -> None:
        self.mode, self.reload, self.value = mode, count, count
        self.out = 0 if mode == 0 else 1
        self.gate = 1
        self.done = False

    def set_gate(self, level: int) -> None:
        if level and not self.gate and self.mode in (2, 3):
            self.value, self.out = self.reload, 1
        if not level and self.mode in (2, 3):
            self.out = 1
        self.gate = level

    def clock(self) -> None:
        if not self.gate:
            return
        if self.mode == 0:
            self.value = (self.value - 1) & 0xFFFF
            if self.value == 0:
                self.out = 1
        elif self.mode == 4:
            self.value = (self.value - 1) & 0xFFFF
            self.out = 0 if self.value == 0 and not self.done else 1
            self.done |= self.value == 0
        elif self.mode == 2:
            self.value = self.reload if self.value == 1 else self.value - 1
            self.out = 0 if self.value == 1 else 1
        else:
            self.value -= 2
            if self.value == 0:
                self.value, self.out = self.reload, 1 - self.out
