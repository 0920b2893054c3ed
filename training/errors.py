"""Errors that a user can act on: printed as one line, without a stack trace."""


class UserError(Exception):
    """Something the user can put right: the message says what was given and what was expected.

    An empty message prints nothing: another process of the same run has already spoken.
    """

    status: int = 1  # the exit status of the program


class UsageError(UserError):
    """The command line or the configuration is wrong."""

    status = 2


class NonFiniteError(UserError):
    """A loss term or a gradient became infinite or NaN; the parameters were not touched by it."""


class StoppedError(UserError):
    """The run was asked to stop by a signal and saved itself first.

    Args:
        message: the line to print.
        signal_number: the signal; the exit status is 128 plus it, as a shell reports it.
    """

    def __init__(self, message: str, *, signal_number: int) -> None:
        super().__init__(message)
        self.status = 128 + signal_number
