"""Errors that a user can cause and mend."""


class UserError(Exception):
    """Something the user can put right. The message says what is wrong, where, and what to do, in one line."""
