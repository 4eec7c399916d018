"""What a bank must hold after a sequence of errors, straight from the rules in words."""

from dataclasses import dataclass


@dataclass
class Error:
    """One error as hardware sees it."""

    kind: str  # CE, UCNA, SRAO, SRAR, UC (context corrupt)
    enabled: bool
    address: int

    @property
    def uncorrected(self) -> bool:
        return self.kind != "CE"


@dataclass
class Bank:
    """A bank's record."""

    holds: Error | None = None
    overflow: bool = False
    corrected: int = 0
    signalled: bool = False
    action_required: bool = False

    def log(self, new: Error) -> None:
        self.signalled |= new.kind in ("SRAO", "SRAR")
        self.action_required |= new.kind == "SRAR"
        if not new.uncorrected:
            self.corrected = min(self.corrected + 1, 0x7FFF)
        old = self.holds
        if old is None:
            self.holds = new
            return
        if old.uncorrected or new.uncorrected:
            self.overflow = True
        if new.enabled and not old.enabled:
            self.holds = new
        elif old.enabled and not new.enabled:
            pass
        elif not old.uncorrected or (new.kind == "UC" and old.kind != "UC"):
            self.holds = new
