"""A pair of 8259As written for reading: sets of inputs and an explicit order of priority."""


class Controller:
    """One 8259A after initialisation."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.requested: set[int] = set()
        self.in_service: list[int] = []
        self.masked: set[int] = set()
        self.high: set[int] = set()
        self.order = list(range(8))  # highest priority first
        self.special_mask = False

    def rotate_below(self, lowest: int) -> None:
        self.order = [(lowest + 1 + i) % 8 for i in range(8)]

    def choice(self) -> int | None:
        """The input that the controller asks for: the first in order, unless something in service comes before it."""
        for each in self.order:
            if each in self.in_service and not (self.special_mask and each in self.masked):
                return None
            if each in self.requested and each not in self.masked:
                return each
        return None

    def accept(self, each: int) -> None:
        self.requested.discard(each)
        self.in_service.append(each)

    def highest_in_service(self) -> int | None:
        candidates = [i for i in self.order if i in self.in_service and not (self.special_mask and i in self.masked)]
        return candidates[0] if candidates else None

    def end(self, each: int | None, rotate: bool) -> None:
        if each is None:
            return
        while each in self.in_service:
            self.in_service.remove(each)
        if rotate:
            self.rotate_below(each)


class Pair:
    """Master and slave."""

    def __init__(self) -> None:
        self.master, self.slave = Controller(0x20), Controller(0x28)

    def follow(self) -> None:
        if self.slave.choice() is None:
            self.master.requested.discard(2)
        else:
            self.master.requested.add(2)

    def line(self, irq: int, level: int) -> None:
        controller = self.slave if irq >= 8 else self.master
        each = irq % 8
        if level and each not in controller.high:
            controller.high.add(each)
            controller.requested.add(each)
        elif not level:
            controller.high.discard(each)
            controller.requested.discard(each)
        self.follow()

    def acknowledge(self) -> int | None:
        each = self.master.choice()
        if each is None:
            return None
        if each == 2:
            behind = self.slave.choice()
            assert behind is not None
            self.slave.accept(behind)
            self.master.accept(2)
            self.follow()
            return self.slave.base + behind
        self.master.accept(each)
        return self.master.base + each
