"""The one exception for anything that the user gave us and that cannot be used."""


class InputError(Exception):
    """A bad file, option or value. The text is one line that names the thing and says what was expected."""

    def __init__(self, where: str, problem: str) -> None:
        self.where, self.problem = where, " ".join(problem.split())
        super().__init__(f"{where}: {self.problem}" if where else self.problem)
