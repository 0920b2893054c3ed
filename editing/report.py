"""Reports on directions: a listing, a table of measurements, a file with its card, a strip."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from clcae.files import write_text
from clcae.images import labelled_grid, write_png
from clcae.quoting import one_line
from clcae.stylegan2 import Generator, normalize_z
from editing.direction_set import save_directions
from editing.directions import Direction, cosines
from editing.editor import moved_pictures
from editing.statistics import LatentStatistics, Watch, samples

MOST = 16  # directions of which a table of cosines is printed
SMALLEST_CELL = 128  # pixels; smaller pictures of a strip are enlarged by a whole number


def listing(directions: Mapping[str, Direction]) -> str:
    """Lists directions, one a line, and the cosine of every pair."""
    rows: list[tuple[str, ...]] = [
        ("name", "space", "rows x width", "layers", "unit", "strengths", "kind", "strength 1")
    ]
    for direction in directions.values():
        low, high = direction.strengths
        layers = "all" if direction.layers is None else "{}-{}".format(*direction.layers)
        rows.append(
            (
                direction.name,
                str(direction.space),
                "{} x {}".format(*direction.vector.shape),
                layers,
                f"{direction.unit:.4g}",
                f"{low:g} to {high:g}",
                direction.semantics,
                one_line(direction.meaning, 200),
            )
        )
    text = _columns(rows)
    if 1 < len(directions) <= MOST:
        text += "\n\ncosines\n" + _columns(_cosine_rows(directions))
    elif len(directions) > MOST:
        text += f"\n\n{len(directions)} directions; cosines are shown of at most {MOST}"
    if any("change" in direction.provenance for direction in directions.values()):
        text += "\n\nmeasured when they were found\n" + summary(directions)
    return text


def summary(directions: Mapping[str, Direction]) -> str:
    """Tabulates what was measured when the directions were found; leaves out what was of none."""
    columns = zip(*_measured_rows(directions), strict=True)
    kept = [column for column in columns if {*column[1:]} != {"-"}]
    return _columns(list(zip(*kept, strict=True)))


def card(directions: Mapping[str, Direction], *, name: str, command: str) -> str:
    """Writes the Markdown card that lies beside a file of directions."""
    first = next(iter(directions.values()))
    conditions = first.provenance.get("conditions")
    off = {
        None: "The boundaries are as found, nothing is projected off.",
        "boundaries": "The boundaries of the other attributes are projected off.",
        "gradients": "What is linear in the other attributes (their least-squares gradients) is "
        "projected off the boundaries.",
    }[first.provenance.get("off") if conditions else None]
    parts = [
        f"# {name}",
        f"Directions in {first.space}, of {first.width} numbers: "
        f"{', '.join(directions)}. Found by {first.provenance.get('method', 'an unknown method')}. "
        f"{off}",
        f"Made by `{command}`.",
        _markdown(_measured_rows(directions)),
        "One unit (strength 1) is:",
        "\n".join(f"- {d.name}: {d.meaning}, {d.unit:.4g} long" for d in directions.values()),
        "Cosines:",
        _markdown(_cosine_rows(directions)),
    ]
    if any("leaks" in direction.provenance for direction in directions.values()):
        parts += [
            "What a unit changes, half of the way from -1 to +1, each attribute in standard "
            "deviations of its own over samples:",
            _markdown(_leak_rows(directions)),
        ]
    if any("compared" in direction.provenance for direction in directions.values()):
        parts += [
            "The largest leak of each way to find them, for the same change of the attribute:",
            _markdown(_compared_rows(directions)),
        ]
    return "\n\n".join(parts) + "\n"


def write_found(
    directions: Mapping[str, Direction],
    path: Path,
    generator: Generator,
    *,
    origin: Mapping[str, str],  # "command" that found them, "generator" that it was given
    card_path: Path | None,
) -> None:
    """Writes directions that were found in a generator, with their origin and on request a card.

    Raises:
        ValueError: if one does not fit the generator, or there are none.
    """
    for direction in directions.values():
        direction.check(generator)
    save_directions(directions, path, provenance=origin)
    if card_path is not None:
        write_text(card_path, card(directions, name=path.name, command=origin["command"]))


def _measured_rows(directions: Mapping[str, Direction]) -> list[tuple[str, ...]]:
    head = ("name", "unit", "strengths", "held-out accuracy", "accuracy of the rest", "change")
    rows: list[tuple[str, ...]] = [(*head, "largest leak", "identity at -1, +1")]
    for direction in directions.values():
        low, high = direction.strengths
        known = direction.provenance
        identity = known.get("identity")
        figures = identity if isinstance(identity, list | tuple) else []
        rows.append(
            (
                direction.name,
                f"{direction.unit:.4g}",
                f"{low:g} to {high:g}",
                _figure(known.get("held_out_accuracy"), "{:.2%}"),
                _figure(known.get("rest_accuracy"), "{:.2%}"),
                _figure(known.get("change"), "{:+.2f}"),
                _figure(known.get("largest_leak"), "{:.3f}"),
                ", ".join(_figure(i, "{:.3f}") for i in figures[:2]) or "-",
            )
        )
    return rows


def _leak_rows(directions: Mapping[str, Direction]) -> list[tuple[str, ...]]:
    names = sorted({leak for d in directions.values() for leak in d.provenance.get("leaks", {})})
    rows: list[tuple[str, ...]] = [("direction", *names)]
    for direction in directions.values():
        leaks = direction.provenance.get("leaks", {})
        own = {**leaks, direction.name: direction.provenance.get("change")}
        rows.append((direction.name, *(_figure(own.get(name), "{:+.3f}") for name in names)))
    return rows


def _compared_rows(directions: Mapping[str, Direction]) -> list[tuple[str, ...]]:
    ways = list(next(iter(directions.values())).provenance.get("compared", {}))
    rows: list[tuple[str, ...]] = [("direction", *ways)]
    for direction in directions.values():
        found = direction.provenance.get("compared", {})
        rows.append((direction.name, *(_figure(found.get(way), "{:.3f}") for way in ways)))
    return rows


def _cosine_rows(directions: Mapping[str, Direction]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", *directions)]
    for name, values in zip(directions, cosines(directions).tolist(), strict=True):
        rows.append((name, *(f"{value:+.3f}" for value in values)))
    return rows


def _figure(value: object, form: str) -> str:
    return form.format(value) if isinstance(value, int | float) else "-"


def _columns(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _markdown(rows: list[tuple[str, ...]]) -> str:
    rule = ("---", *["---:"] * (len(rows[0]) - 1))
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:]))


@torch.no_grad()
def strip(
    generator: Generator,
    direction: Direction,
    codes: Tensor,  # [N, D] or [N, L, D]
    strengths: Sequence[float],
    *,
    watch: Watch | None = None,
) -> Tensor:
    """Draws one picture [3, H, W]: a row for each code, a column for each strength.

    Raises ValueError if the direction does not fit the generator.
    """
    direction.check(generator)
    columns = {}
    for strength in strengths:
        pictures = moved_pictures(generator, direction, codes, strength, watch=watch)
        columns[f"{strength:g}"] = torch.cat([part.cpu() for part in pictures])
    return labelled_grid(columns, scale=max(1, SMALLEST_CELL // generator.resolution))


def write_strips(
    folder: Path,
    generator: Generator,
    directions: Mapping[str, Direction],
    *,
    names: Sequence[str],
    strengths: Sequence[float],
    people: int,
    seed: int,
) -> Iterator[Path]:
    """Draws strips of the named directions into a folder; yields each file once it is written.

    The rows are the mean code, which Z has not, and so many sampled people, the columns the
    strengths.

    Raises:
        ValueError: if a name is unknown, or a direction does not fit the generator.
    """
    for name in names:
        if name not in directions:
            raise ValueError(f"there is no direction {name!r}; there are: {', '.join(directions)}")
    statistics = LatentStatistics.of_generator(generator)
    z, w = next(samples(generator, num_samples=people, seed=seed))
    of_w, of_z = torch.cat([statistics.mean[None].to(w), w]), normalize_z(z)
    watch = Watch(statistics)
    for name in names:
        codes = of_w if directions[name].space.is_mapped else of_z
        path = folder / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.png"
        write_png(strip(generator, directions[name], codes, strengths, watch=watch), path)
        yield path
