"""The one exception that a user's input can cause; the command line turns it into one sentence and exit code 2."""


class UserError(ValueError):
    """Bad input from outside: its message names the file, key or option, and the way out."""
