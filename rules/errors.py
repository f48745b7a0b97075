"""What goes wrong with rules."""


class RulesError(Exception):
    """One line for the operator: what failed, and what was expected."""
