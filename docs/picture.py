"""A graph as a picture: columns by the longest way from the start, arrows from left to right."""

from html import escape

from langchain_core.runnables.graph import Graph

WIDE, HIGH, GAP, ROW = 92, 34, 30, 74
MARGIN, ABOVE = 14, 70
"""Room above for the arrows that leap over a column."""


def svg(graph: Graph) -> str:
    """SVG text. The graph has no circle."""
    column = dict.fromkeys(graph.nodes, 0)
    for _ in graph.nodes:
        for edge in graph.edges:
            column[edge.target] = max(column[edge.target], column[edge.source] + 1)
    rows: dict[int, int] = {}
    place: dict[str, tuple[int, int]] = {}
    for name in graph.nodes:
        row = rows.get(column[name], 0)
        rows[column[name]] = row + 1
        place[name] = (MARGIN + column[name] * (WIDE + GAP), ABOVE + row * ROW)
    width = 2 * MARGIN + (max(column.values()) + 1) * (WIDE + GAP) - GAP
    height = ABOVE + max(rows.values()) * ROW
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-family="sans-serif" font-size="14">',
        "<title>The state machine: which node follows which</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#56606b"/></marker></defs>',
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for edge in graph.edges:
        dashes = ' stroke-dasharray="5 4"' if edge.conditional else ""
        way = _way(place[edge.source], place[edge.target], column[edge.target] - column[edge.source])
        lines.append(f'<path d="{way}" fill="none" stroke="#56606b"{dashes} marker-end="url(#tip)"/>')
    for name, (x, y) in place.items():
        end = name.startswith("__")
        lines += [
            f'<rect x="{x}" y="{y}" width="{WIDE}" height="{HIGH}" rx="{17 if end else 6}" '
            f'fill="{"#eef1f4" if end else "#e3ecf7"}" stroke="#1f5fa8"/>',
            f'<text x="{x + WIDE // 2}" y="{y + 22}" text-anchor="middle" fill="#14304f">{escape(name.strip("_"))}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


def _way(source: tuple[int, int], target: tuple[int, int], columns: int) -> str:
    """Straight to the next column; over the columns between in an arc, from a lower row below them."""
    (x, y), (to_x, to_y) = source, target
    if columns > 1 and y == to_y:
        start, end, top = x + WIDE // 2, to_x + WIDE // 2, y - min(ABOVE + 20, 22 * columns)
        return f"M{start} {y}C{start} {top} {end} {top} {end} {to_y}"
    if columns > 1:
        middle = to_x + WIDE // 2
        return f"M{x + WIDE} {y + HIGH // 2}H{middle - 24}Q{middle} {y + HIGH // 2} {middle} {y - 10}V{to_y + HIGH}"
    return f"M{x + WIDE} {y + HIGH // 2}L{to_x} {to_y + HIGH // 2}"
