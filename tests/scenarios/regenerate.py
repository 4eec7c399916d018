"""Rewrites the golden traces: python -m tests.scenarios.regenerate [NAME...]

Do it only when a change of what the machine does is wanted, and say so in the commit.
"""

import sys

from tests.scenarios.goldens import SCENARIOS, TRACES, path_of, record


def main(names: list[str]) -> int:
    """Record the scenarios; the first that does not end well stops it, with its golden trace as it was."""
    TRACES.mkdir(exist_ok=True)
    for name in names or SCENARIOS:
        fresh = path_of(name).with_suffix(".new")
        status = record(name, fresh)
        if status:
            fresh.unlink(missing_ok=True)
            return status
        fresh.replace(path_of(name))
        print(f"{path_of(name).name}: {path_of(name).stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
