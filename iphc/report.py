"""`iphc report`: the table as Markdown and CSV, and one HTML page without other files."""

import base64
import csv
import html
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ..files.atomic import write_atomically
from ..miniature.networks import PICTURE_SIDE
from ..miniature.people import Person as SyntheticPerson
from ..miniature.people import draw_people
from .ledger import FAILED, MADE, Ledger, Row
from .manifest import Manifest
from .miniature_metrics import REFERENCE
from .people import Person
from .run import environments
from .score import COLUMNS, DRAWN, Score
from .stats import DRAWS, LEVEL, Estimate, by_person, difference, estimate
from .units import Unit, fingerprint, prompt_text, units_of

PAPER = ("id", "clip", "accuracy", "shape", "pose", "expression", "light")
PAGE = Path(__file__).with_name("page.html")
SHOWN_PEOPLE, SHOWN_IMAGES, WORST, SIDE = 4, 12, 12, 128
MOST_REASONS = 10
_WORST_BY = ("id", "turn", "clip")
NOT_THE_PAPERS = (
    "This benchmark has the shape of the paper's HumanIPHC, whose people, prompts, heads and code were not published. "
    "Its numbers may not be set beside the paper's."
)


@dataclass(frozen=True)
class Results:
    """What a report is made of."""

    manifest: Manifest
    scores: dict[str, list[Score]]
    """By method."""
    drawn: list[Score]
    """Of the drawn truth: what a perfect portrait gets. Empty if people are not synthetic."""
    rows: dict[str, list[Row]]
    """By method, without files."""
    whole: dict[str, Unit]
    """The units that are whole, by name."""
    units: int
    against: str
    """The method that the others are compared with."""
    environments: dict[str, dict[str, object]]

    @property
    def columns(self) -> list[str]:
        """The columns that were measured, and the paper's seven."""
        measured = {name for scores in self.scores.values() for score in scores for name in score.values}
        return [name for name in COLUMNS if name in measured or name in PAPER]


def collect(manifest: Manifest, out: Path, scores: Sequence[Score], against: str, drawn: Sequence[Score] = ()) -> Results:
    """Gather the results of a run.

    Args:
        manifest: The manifest.
        out: The run's folder.
        scores: From `score_run`.
        against: Name of the method to compare with; the manifest's last one if empty.
        drawn: From `score_drawn`.
    """
    ledger, rows, whole, units = Ledger(out), defaultdict(list), {}, 0
    for unit in units_of(manifest):
        units += 1
        if ledger.state(unit, fingerprint(manifest, unit)) == "whole":
            whole[unit.name] = unit
            rows[unit.method.name] += ledger.rows(unit, files=False)
    by_method = {method.name: [s for s in scores if s.method == method.name] for method in manifest.methods}
    by_method = {name: found for name, found in by_method.items() if found}
    return Results(
        manifest, by_method, list(drawn), dict(rows), whole, units, against or manifest.methods[-1].name,
        environments(out),
    )  # fmt: skip


def shown(name: str, found: Estimate | None, signed: bool = False) -> str:
    """Write an estimate as a cell: the mean, and its interval in brackets."""
    if found is None:
        return "–"
    column = COLUMNS[name]
    mean, low, high = (
        f"{value * column.factor:{'+' if signed else ''}.{column.decimals}f}" for value in (found.mean, found.low, found.high)
    )
    return f"{mean} [{low}, {high}]"


def table(results: Results) -> list[list[str]]:
    """Return the table of means: a heading, and a row for each method."""
    heading = ["method", *(COLUMNS[name].title + {1: "", -1: " (less)"}[COLUMNS[name].better] for name in results.columns)]
    return [heading] + [
        [method, *(shown(name, estimate(by_person(scores, name))) for name in results.columns)]
        for method, scores in {**results.scores, **({DRAWN: results.drawn} if results.drawn else {})}.items()
    ]


def differences(results: Results) -> list[list[str]]:
    """Return the table of paired differences to the method `against`."""
    others = results.scores.get(results.against, [])
    return [
        [method, *(shown(name, difference(scores, others, name), signed=True) for name in results.columns)]
        for method, scores in results.scores.items()
        if method != results.against
    ]


def state(results: Results) -> list[str]:
    """Return what is measured, and what is missing, in sentences."""
    manifest = results.manifest
    rows = [row for rows in results.rows.values() for row in rows]
    failed = sum(row.status == FAILED for row in rows)
    lines = [
        f"{len(manifest.people)} people, {len(manifest.prompts)} prompts, {len(manifest.heads)} head conditions, "
        f"{manifest.images} of each; seed {manifest.seed}, version {manifest.version}.",
        f"{len(rows) - failed} images made, {failed} failed, in {len(results.whole)} of {results.units} units."
        + ("" if len(results.whole) == results.units else " **The run is not complete.**"),
        f"Means over people, with {LEVEL:.0%} intervals of {DRAWS:,} bootstrap draws of people. More is better, "
        "except where a heading says (less). – is not measured.",
    ]
    if results.drawn:
        lines.append(f"'{DRAWN}' is what the measure finds in pictures that show exactly what was asked for.")
    lines += [
        f"Without head control: {', '.join(names)}."
        for names in [[m.name for m in manifest.methods if not m.controls_head]]
        if names
    ]
    lines += [f"Environment {key}: {json.dumps(value)}." for key, value in results.environments.items()]
    return lines


def markdown(results: Results) -> str:
    """Return the report as Markdown."""

    def lines(rows: Iterable[Sequence[str]]) -> list[str]:
        return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]

    means = table(results)
    rule = lines([["---"] * len(means[0])])
    text = [
        f"# {results.manifest.name}",
        "",
        NOT_THE_PAPERS,
        "",
        *state(results),
        "",
        *lines(means[:1]),
        *rule,
        *lines(means[1:]),
    ]
    if found := differences(results):
        text += [
            "",
            f"Paired differences to *{results.against}*, on the same noise:",
            "",
            *lines(means[:1]),
            *rule,
            *lines(found),
        ]
    text += ["", *(f"- {COLUMNS[name].title}: {COLUMNS[name].text}." for name in results.columns)]
    if reasons := failures(results):
        listed = [f"- {count} × {method}: {reason}" for (method, reason), count in reasons[:MOST_REASONS]]
        text += ["", "Failures:", "", *listed, *(f"- {more}" for more in _more(reasons))]
    return "\n".join(text) + "\n"


def _more(reasons: Sequence[object]) -> list[str]:
    """Count the reasons that are not shown, if there are any."""
    return [f"and {len(reasons) - MOST_REASONS} other reasons"] if len(reasons) > MOST_REASONS else []


def failures(results: Results) -> list[tuple[tuple[str, str], int]]:
    """Return the methods and reasons of failures with their counts, the most frequent first."""
    rows = [row for rows in results.rows.values() for row in rows if row.status == FAILED]
    return Counter((row.method, (row.reason.strip().splitlines() or ["?"])[0]) for row in rows).most_common()


def comma_separated(results: Results) -> str:
    """Return the means and differences as CSV, with a line for each method and column."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["method", "against", "column", "mean", "low", "high", "people", "images"])
    others = results.scores.get(results.against, [])
    for method, scores in results.scores.items():
        for name in results.columns:
            found = [("", estimate(by_person(scores, name)))]
            if method != results.against:
                found.append((results.against, difference(scores, others, name)))
            for against, one in found:
                if one is not None:
                    numbers = [f"{value:.6g}" for value in (one.mean, one.low, one.high)]
                    writer.writerow([method, against, name, *numbers, one.people, one.images])
    return file.getvalue()


def page(results: Results, out: Path, people: Sequence[str] = ()) -> str:
    """Return the report as an HTML page that needs no other file.

    Args:
        results: The results.
        out: The run's folder, for the images.
        people: Names of the people whose images are shown; the first ones if empty.
    """
    pictures = _Pictures(results, out)
    e = html.escape
    means = table(results)

    def numbers(rows: Sequence[Sequence[str]]) -> str:
        """Return a table with each interval below its mean."""

        def cell(text: str) -> str:
            mean, bracket, interval = text.partition(" [")
            return f"<td>{e(mean)}" + (f"<small>{e(bracket.strip() + interval)}</small></td>" if bracket else "</td>")

        body = "".join(f"<tr><th>{e(row[0])}</th>{''.join(map(cell, row[1:]))}</tr>" for row in rows)
        heading = "".join(f"<th>{e(title)}</th>" for title in means[0])
        return f"<div class=wide><table class=numbers><tr>{heading}</tr>{body}</table></div>"

    parts = [f"<h1>{e(results.manifest.name)}</h1>", f"<p class=note>{e(NOT_THE_PAPERS)}</p>"]
    parts += [f"<p>{e(line.replace('**', ''))}</p>" for line in state(results)]
    parts += [f"<h2>Table</h2>{numbers(means[1:])}"]
    if found := differences(results):
        parts.append(f"<h2>Paired differences to {e(results.against)}</h2>{numbers(found)}")
    parts.append(
        "<dl>" + "".join(f"<dt>{e(COLUMNS[n].title)}</dt><dd>{e(COLUMNS[n].text)}</dd>" for n in results.columns) + "</dl>"
    )
    parts += [f"<h2>Curve over {e(setting)}</h2>{drawn}" for setting, drawn in curves(results)]
    if reasons := failures(results):
        listed = "".join(f"<li>{count} × {e(method)}: {e(reason)}</li>" for (method, reason), count in reasons[:MOST_REASONS])
        more = "".join(f"<li>{text}</li>" for text in _more(reasons))
        parts.append(f"<h2>Failures</h2><ul>{listed}{more}</ul>")
    for name in _WORST_BY:
        if name in results.columns and (worst := pictures.worst(name)):
            parts.append(f"<h2>Worst by {e(COLUMNS[name].title)}</h2><div class=grid>{worst}</div>")
    for person in people or [person.name for person in results.manifest.people[:SHOWN_PEOPLE]]:
        parts.append(f"<h2>{e(person)}</h2><div class=wide>{pictures.grid(person)}</div>")
    return PAGE.read_text(encoding="utf-8").replace("TITLE", e(results.manifest.name)).replace("BODY", "\n".join(parts))


def curves(results: Results) -> Iterable[tuple[str, str]]:
    """Yield each setting that methods vary, and its curves of identity and pose as SVG."""
    by_setting: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for method in results.manifest.methods:
        if method.curve is not None and method.name in results.scores:
            by_setting[method.curve[0]].append((method.curve[1], method.name))
    for setting, points in by_setting.items():
        drawn = []
        for name in ("id", "pose", "turn"):
            found = [(x, estimate(by_person(results.scores[method], name))) for x, method in sorted(points)]
            if len(found) > 1 and all(one is not None for _, one in found):
                drawn.append(_curve(name, setting, [(x, one) for x, one in found if one is not None]))
        if drawn:
            yield setting, "".join(drawn)


def _curve(name: str, setting: str, points: Sequence[tuple[float, Estimate]]) -> str:
    """Draw means with their intervals over a setting."""
    width, height, edge = 360, 220, 48
    xs = [x for x, _ in points]
    low, high = min(one.low for _, one in points), max(one.high for _, one in points)

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - xs[0]) / ((xs[-1] - xs[0]) or 1)
        up = (y - low) / ((high - low) or 1)
        return edge + across * (width - 2 * edge), height - edge - up * (height - 2 * edge)

    def place(x: float, y: float) -> str:
        return "{:.1f},{:.1f}".format(*at(x, y))

    lines = "".join(f'<path d="M{place(xs[0], y)} L{place(xs[-1], y)}" class=line />' for y in (low, high))
    bars = "".join(f'<path d="M{place(x, one.low)} L{place(x, one.high)}" class=bar />' for x, one in points)
    dots = "".join('<circle cx="{:.1f}" cy="{:.1f}" r="3" />'.format(*at(x, one.mean)) for x, one in points)
    labels = "".join(f'<text x="{at(x, low)[0]:.1f}" y="{height - 28}" text-anchor="middle">{x:g}</text>' for x in xs)
    factor, decimals = COLUMNS[name].factor, COLUMNS[name].decimals
    ends = [(at(xs[0], y)[1], f"{y * factor:.{min(decimals, 3)}f}") for y in (low, high)]
    sides = "".join(f'<text x="{edge - 6}" y="{y:.1f}" text-anchor="end">{text}</text>' for y, text in ends)
    heading = html.escape(f"{COLUMNS[name].title} over {setting}")
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f'<text x="{width / 2}" y="16" text-anchor="middle">{heading}</text>'
        f'{lines}{bars}<polyline points="{" ".join(place(x, one.mean) for x, one in points)}" />{dots}{labels}{sides}</svg>'
    )


class _Pictures:
    """Thumbnails out of a run's files; each unit is read once."""

    def __init__(self, results: Results, out: Path):
        self.results, self.ledger = results, Ledger(out)
        self._units: dict[str, list[Row]] = {}
        self._unit_of = {(row.method, row.person, row.prompt): row.unit for rows in results.rows.values() for row in rows}

    def row(self, method: str, person: str, prompt: int, head: str, image: int) -> Row | None:
        """Return an image's row, or None if its unit is not whole."""
        name = self._unit_of.get((method, person, prompt))
        if name is None:
            return None
        if name not in self._units:
            self._units[name] = self.ledger.rows(self.results.whole[name])
        return next(row for row in self._units[name] if (row.prompt, row.head, row.image) == (prompt, head, image))

    def figure(self, method: str, person: str, prompt: int, head: str, image: int, caption: str) -> str:
        """Return a thumbnail with a caption."""
        row = self.row(method, person, prompt, head, image)
        e = html.escape
        by_name = {one.name: one for one in self.results.manifest.methods}
        about = f"{method}, {person}\n{prompt_text(self.results.manifest, by_name[method], prompt)}\nhead {head}, image {image}"
        if row is None or row.status != MADE or row.file is None:
            reason = "not made yet" if row is None else (row.reason or "the image was not kept")
            shown = f"<div class=missing>{e(reason[:80])}</div>"
            return f'<figure title="{e(about)}">{shown}<figcaption>{e(caption)}</figcaption></figure>'
        source = _thumbnail(row.file)
        return f'<figure title="{e(about)}"><img src="{source}" alt="{e(about)}"><figcaption>{e(caption)}</figcaption></figure>'

    def worst(self, name: str) -> str:
        """Return the images with the worst values of a column, the worst first."""
        better = COLUMNS[name].better
        scores = [score for scores in self.results.scores.values() for score in scores if name in score.values]
        scores.sort(key=lambda score: better * score.values[name])
        decimals = min(COLUMNS[name].decimals, 3)
        captions = [f"{score.values[name]:.{decimals}f}  {score.method}" for score in scores[:WORST]]
        return "".join(
            self.figure(s.method, s.person, s.prompt, s.head, s.image, caption)
            for s, caption in zip(scores, captions, strict=False)
        )

    def grid(self, person: str) -> str:
        """Return a table of a person's images: a row for each method, a column for each of some prompts and heads."""
        manifest, e = self.results.manifest, html.escape
        pairs = some_pairs(len(manifest.prompts), list(manifest.heads), SHOWN_IMAGES)
        heading = "".join(
            f"<th>{e(manifest.prompts[prompt].replace('{subject}', '…'))}<br>{e(head)}</th>" for prompt, head in pairs
        )
        rows = "".join(
            f"<tr><th>{e(method)}</th>"
            + "".join(f"<td>{self.figure(method, person, p, h, 0, '')}</td>" for p, h in pairs)
            + "</tr>"
            for method in self.results.scores
        )
        who = next(one for one in manifest.people if one.name == person)
        photo = f'<figure><img src="{_thumbnail(reference(who))}" alt="reference"><figcaption>reference</figcaption></figure>'
        return f"<table class=images><tr><th>{photo}</th>{heading}</tr>{rows}</table>"


def some_pairs(prompts: int, heads: Sequence[str], most: int) -> list[tuple[int, str]]:
    """Choose pairs of a prompt and a head, such that every prompt and every head appears before one repeats."""
    diagonals = ((i % prompts, heads[(i + i // prompts) % len(heads)]) for i in range(prompts * len(heads)))
    return list(dict.fromkeys(diagonals))[:most]


def reference(person: Person) -> bytes:
    """Return the file of a person's reference picture."""
    if person.photo is not None:
        return person.photo.read_bytes()
    assert person.synthetic is not None
    who = SyntheticPerson.sample(person.synthetic)
    drawn = draw_people([who], who.head(), [REFERENCE], PICTURE_SIDE)[0].permute(1, 2, 0)
    file = io.BytesIO()
    Image.fromarray((drawn * 255).round().byte().numpy()).save(file, "PNG")
    return file.getvalue()


def _thumbnail(file: bytes) -> str:
    with Image.open(io.BytesIO(file)) as image:
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    small.save(content, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(content.getvalue()).decode()}"


def write_report(results: Results, out: Path, people: Sequence[str] = ()) -> list[Path]:
    """Write table.md, table.csv and page.html.

    Args:
        results: The results.
        out: The run's folder.
        people: Names of the people to show.

    Returns:
        The files.
    """
    made: dict[str, Callable[[], str]] = {
        "table.md": lambda: markdown(results),
        "table.csv": lambda: comma_separated(results),
        "page.html": lambda: page(results, out, people),
    }
    for name, text in made.items():
        content = text()
        write_atomically(out / name, lambda part, content=content: part.write_text(content, encoding="utf-8"))
    return [out / name for name in made]
