"""Exit statuses of the command."""

OK = 0
DIFFERENT = 1  # an expectation failed, or traces differ
BAD_INPUT = 2  # a file, option or value that cannot be used; also a file that cannot be written
GUEST_WRONG = 3  # triple fault, something unmodelled, no progress
INTERNAL_ERROR = 70
INTERRUPTED = 130
BROKEN_PIPE = 141
TERMINATED = 143
