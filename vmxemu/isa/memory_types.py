"""Memory types, and what two of them make together: `memory_types.combined()`. SDM Vol. 3A, 'Memory Cache Control'."""

from vmxemu.isa import data

# Encodings in the MTRRs, IA32_PAT and EPT entries; UC- in IA32_PAT only.
NUMBERS = {"UC": 0, "WC": 1, "WT": 4, "WP": 5, "WB": 6, "UC-": 7}
NAMES = {number: name for name, number in NUMBERS.items()}


def combined() -> list[int]:
    """Effective type at index `region * 8 + page`: the type of the MTRRs or of EPT, and that of IA32_PAT; UC where one of
    them is reserved.
    """
    found = [NUMBERS["UC"]] * 64
    for row in data.table("memory_types"):
        found[NUMBERS[row["region"]] * 8 + NUMBERS[row["page"]]] = NUMBERS[row["effective"]]
    return found
