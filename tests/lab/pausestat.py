"""Are pauses longer than others by more than is allowed?  Ranks decide, not medians: a few pairs on a busy machine differ by chance alone."""


def excess_p(moved, plain, allowed_ms):
    """One-sided p of Mann and Whitney's rank test, exact: how likely pauses like these are if those of `moved` are not longer
    than those of `plain` by more than allowed_ms. Few pairs on a busy machine say little, and then p is large."""
    shifted = [x - allowed_ms for x in moved]
    n, m = len(shifted), len(plain)
    u = sum((x > y) + 0.5 * (x == y) for x in shifted for y in plain)
    # ways[k]: orders of n and m values in which k pairs have the first one larger (recurrence over the largest value)
    ways = [[None] * (m + 1) for _ in range(n + 1)]
    for i in range(n + 1):
        for j in range(m + 1):
            if i == 0 or j == 0:
                ways[i][j] = [1]
                continue
            row = [0] * (i * j + 1)
            for k, c in enumerate(ways[i - 1][j]):
                row[k + j] += c
            for k, c in enumerate(ways[i][j - 1]):
                row[k] += c
            ways[i][j] = row
    row = ways[n][m]
    return sum(c for k, c in enumerate(row) if k >= u) / sum(row)
