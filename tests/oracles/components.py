"""Connected components by definition."""


def components(pairs: list[tuple[int, int]]) -> list[set[int]]:
    """Connected sets of the nodes that occur in `pairs`, by joining sets until nothing changes."""
    sets = [{a, b} for a, b in pairs]
    changed = True
    while changed:
        changed = False
        for i in range(len(sets)):
            for j in range(i + 1, len(sets)):
                if sets[i] & sets[j]:
                    sets[i] |= sets.pop(j)
                    changed = True
                    break
            if changed:
                break
    return sets
