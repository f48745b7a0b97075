"""What can go wrong in a way a user is told of. cli.py catches Layer45Error alone, and only at the top."""


class Layer45Error(Exception):
    """Its text is one line for the user; the command ends with status 1."""


class ConfigError(Layer45Error):
    """Everything that is wrong with a configuration. Nothing of it was applied.

    problems: one line each, "FILE:LINE: key: what; expected …", sorted by file and line.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
