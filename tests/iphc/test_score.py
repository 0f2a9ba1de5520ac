"""The measure on pictures that are made by hand: perfect copies, other people, turned heads, shuffled prompts."""

import csv
import io
import re
from collections import Counter
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from capface.errors import BadInput
from capface.flame.builtin import builtin_head
from capface.flame.editing import edit_head, turn_head
from capface.iphc.command import main
from capface.iphc.ledger import Ledger
from capface.iphc.manifest import read_manifest
from capface.iphc.miniature_metrics import setting_of
from capface.iphc.report import collect, comma_separated, curves, markdown, page, some_pairs, table, write_report
from capface.iphc.run import Run, RunOptions, run_here
from capface.iphc.score import Score, open_metrics, score_drawn, score_run, stored_scores
from capface.iphc.stats import by_person, difference, estimate
from capface.iphc.units import units_of
from capface.iphc.workflow import head_inputs
from capface.miniature.people import Person, draw_people
from capface.tests.iphc.conftest import Bench

PEOPLE = (1_000_000, 1_000_001)
PROMPTS = ["red shirt, beach", "blue shirt, library"]
HEADS = {
    "front": {"yaw": 0, "pitch": 0, "roll": 0, "position_x": 0, "position_y": 0, "size": 1.4},
    "right": {"yaw": 10, "pitch": 0, "roll": 0, "position_x": 0, "position_y": 0, "size": 1.4},
}
TURN = 20.0


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run of methods whose pictures are drawn, and its scores."""
    bench = Bench(tmp_path_factory.mktemp("drawn"))
    model = builtin_head()

    def draw(method, person, prompt, head, name):
        who = Person.sample(person)
        posed = edit_head(model, who.head(), **head_inputs(HEADS[head]))
        if method == "turned":
            posed = turn_head(model, posed, yaw=TURN)
        if method == "another person":
            who = Person.sample(person + 50)
        setting = setting_of(PROMPTS[1 - prompt if method == "shuffled" else prompt])
        assert setting is not None
        picture = draw_people([who], posed, [setting], 128)[0].permute(1, 2, 0)
        path = bench.folder / method / f"{name}-{prompt}-{head}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray((picture.numpy() * 255).round().astype(np.uint8)).save(path)

    methods = ("perfect", "another person", "turned", "shuffled", "half")
    for method in methods:
        for person in PEOPLE:
            for prompt in range(2):
                for head in HEADS:
                    if method != "half" or head == "front":
                        draw(method, person, prompt, head, f"synthetic-{person}")
    manifest = bench.manifest(
        people={"synthetic": PEOPLE[0], "count": 2}, prompts=PROMPTS, heads=HEADS, images=1, size=[128, 128], sampling={},
        metrics=["miniature"], methods={m: {"images": m + "/{person}-{prompt}-{head}.png"} for m in methods},
    )  # fmt: skip
    run_here(Run(manifest, bench.out, RunOptions(show=False)), None)
    return bench, manifest, score_run(manifest, bench.out, open_metrics(manifest))


@pytest.fixture
def means(drawn):
    """Means of all images by method and column."""
    _, _, scores = drawn
    found = {}
    for method in {score.method for score in scores}:
        of_method = [score.values for score in scores if score.method == method]
        found[method] = {
            name: float(np.mean([v[name] for v in of_method if name in v])) for name in {n for v in of_method for n in v}
        }
        print(method, {name: round(value, 3) for name, value in sorted(found[method].items())})
    return found


def test_a_perfect_copy_is_near_perfect_in_every_column(means):
    perfect = means["perfect"]
    assert perfect["id"] > 0.6 and perfect["judge"] > 0.6
    assert perfect["accuracy"] == 1 and perfect["clip"] > 0.9
    assert perfect["turn"] < 6 and perfect["landmarks"] < 6 and perfect["pose"] < 0.08
    assert perfect["found"] == 1 and perfect["id0"] == perfect["id"]


def test_another_person_costs_identity_alone(means):
    for column in ("id", "judge"):
        assert means["another person"][column] < means["perfect"][column] - 0.4
    assert means["another person"]["accuracy"] == 1 and means["another person"]["turn"] < 8


def test_a_head_turned_by_known_degrees_is_measured_as_such(means):
    assert means["turned"]["turn"] == pytest.approx(TURN, abs=5), "the evaluator underestimates turns"
    assert means["turned"]["pose"] == pytest.approx(np.radians(TURN) / np.sqrt(3), abs=0.06), "one of three numbers"
    assert means["turned"]["landmarks"] > 2 * means["perfect"]["landmarks"]
    assert means["turned"]["judge"] > means["another person"]["judge"] + 0.3
    assert means["turned"]["accuracy"] == 1


def test_shuffled_prompts_cost_the_prompt_alone(means):
    assert means["shuffled"]["accuracy"] == 0 and means["shuffled"]["clip"] < 0.2
    assert means["shuffled"]["id"] > means["another person"]["id"] + 0.3 and means["shuffled"]["turn"] < 6


def test_a_missing_image_counts_as_not_found_and_without_identity(means, drawn):
    half = means["half"]
    assert half["found"] == 0.5
    assert half["id0"] == pytest.approx(half["id"] / 2)
    assert half["accuracy"] == 1, "over the images that exist"


def test_the_drawn_truth_is_a_row_of_its_own(drawn):
    """The pictures of the method `perfect` are the same, but went through files of 8 bits."""
    bench, manifest, scores = drawn
    metrics = open_metrics(manifest)
    truth = score_drawn(manifest, bench.out, metrics)
    assert len(truth) == 8 and score_drawn(manifest, bench.out, metrics) == truth
    perfect = {score.key: score.values for score in scores if score.method == "perfect"}
    for score in truth:
        assert score.values == pytest.approx({name: perfect[score.key][name] for name in score.values}, abs=0.3)
        assert score.values["id"] == pytest.approx(perfect[score.key]["id"], abs=0.01)
    rows = table(collect(manifest, bench.out, scores, "", truth))
    assert rows[-1][0] == "the drawn truth" and len(rows) == 7


def test_scores_are_kept_until_their_images_or_networks_change(drawn, monkeypatch):
    bench, manifest, scores = drawn
    metrics, said = open_metrics(manifest), []
    assert stored_scores(manifest, bench.out) == scores, "without any network"
    assert score_run(manifest, bench.out, metrics, said.append) == scores and said == []
    unit = next(units_of(manifest))
    path = bench.out / "scores" / "miniature" / f"{unit.name}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[:200])
    assert stored_scores(manifest, bench.out) is None
    assert score_run(manifest, bench.out, metrics, said.append) == scores
    assert said == [f"1/10  {unit.name}"] and path.read_bytes() != content[:200]
    monkeypatch.setattr(metrics, "mark", "other networks")
    monkeypatch.setattr("capface.iphc.score.score_rows", lambda metrics, unit, rows: [])
    assert score_run(manifest, bench.out, metrics) == []
    monkeypatch.undo()
    assert score_run(manifest, bench.out, metrics) == scores


def test_a_mean_is_that_of_people_and_its_interval_that_of_draws_of_people():
    found = estimate({"a": [1.0, 1.0, 1.0, 1.0], "b": [0.0]})
    assert found is not None
    assert (found.mean, found.people, found.images) == (0.5, 2, 5)
    assert (found.low, found.high) == (0, 1)
    assert estimate({"a": [2.0]}) == estimate({"a": [2.0], "b": []})
    assert estimate({}) is None
    random = np.random.default_rng(0)
    people = {str(i): [value] for i, value in enumerate(random.normal(3, 1, 400))}
    found = estimate(people)
    assert found is not None
    half = 1.96 * np.std([v[0] for v in people.values()]) / 20
    assert (found.high - found.mean, found.mean - found.low) == pytest.approx((half, half), rel=0.1)
    assert estimate(people) == found, "seeded"


def score_of(method, person, image, **values):
    return Score(method, person, 0, "h", image, values)


def test_differences_are_paired():
    one = [score_of("one", p, i, id=10.0 * p_i + i + 1) for p_i, p in enumerate("abc") for i in range(3)]
    two = [score_of("two", p, i, id=10.0 * p_i + i) for p_i, p in enumerate("abc") for i in range(3)]
    found = difference(one, two, "id")
    assert found is not None
    assert (found.mean, found.low, found.high, found.images) == (1, 1, 1, 9), "people differ by 10, pairs by 1"
    del two[0].values["id"]
    found = difference(one, two, "id")
    assert found is not None and found.images == 8
    assert difference(one, [], "id") is None
    assert by_person(one, "turn") == {}


class Page(HTMLParser):
    """Counts tags, and keeps the addresses in a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.texts = Counter(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags[tag] += 1
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_report_has_every_method_and_column(drawn):
    bench, manifest, scores = drawn
    results = collect(manifest, bench.out, scores, "perfect")
    files = write_report(results, bench.out)
    assert [path.name for path in files] == ["table.md", "table.csv", "page.html"]
    rows = table(results)
    assert results.drawn == []
    assert [row[0] for row in rows] == ["method", "perfect", "another person", "turned", "shuffled", "half"]
    for title in ("ID", "CLIP", "acc. %", "Shape (less)", "Pose (less)", "Exp (less)", "Light (less)"):
        assert title in rows[0]
    assert rows[1][rows[0].index("Shape (less)")] == "–", "not measured, and not left out"
    assert re.fullmatch(r"100\.0 \[100\.0, 100\.0\]", rows[1][rows[0].index("acc. %")])
    text = markdown(results)
    assert "may not be set beside the paper's" in text and "4 failed" in text
    assert "Paired differences to *perfect*" in text and "- 4 × half: the image cannot be read (" in text
    lines = list(csv.DictReader(io.StringIO(comma_separated(results))))
    (turned,) = (line for line in lines if (line["method"], line["column"], line["against"]) == ("turned", "turn", ""))
    assert float(turned["mean"]) == pytest.approx(
        np.mean([score.values["turn"] for score in scores if score.method == "turned"]), rel=1e-5
    )
    (worse,) = (line for line in lines if (line["method"], line["column"], line["against"]) == ("turned", "turn", "perfect"))
    assert float(worse["mean"]) > 10


def test_rare_reasons_of_failures_are_counted(drawn, monkeypatch):
    bench, manifest, scores = drawn
    monkeypatch.setattr("capface.iphc.report.MOST_REASONS", 0)
    results = collect(manifest, bench.out, scores, "")
    assert "Failures:\n\n- and 1 other reasons" in markdown(results)
    assert "<ul><li>and 1 other reasons</li></ul>" in page(results, bench.out)


def test_the_page_needs_no_other_file_and_shows_the_worst_first(drawn):
    bench, manifest, scores = drawn
    text = page(collect(manifest, bench.out, scores, ""), bench.out)
    found = Page(text)
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.addresses)
    assert "http" not in re.sub(r"data:[^\"]*", "", text)
    assert found.tags["img"] >= 2 * 5 * 4 - 4 + 2 and found.tags["figure"] - found.tags["img"] == 4, (
        "the missing ones are shown as such"
    )
    worst = text[text.index("Worst by turn") :]
    first = float(re.findall(r"<figcaption>([\d.]+)  ", worst)[0])
    assert first == pytest.approx(max(score.values.get("turn", 0) for score in scores), abs=0.1)


@pytest.mark.parametrize(("prompts", "heads"), [(6, 4), (35, 10), (2, 2), (1, 5), (5, 1), (12, 12)])
def test_the_grid_shows_every_prompt_and_head_before_one_repeats(prompts, heads):
    names = [f"h{i}" for i in range(heads)]
    pairs = some_pairs(prompts, names, 12)
    assert len(pairs) == len(set(pairs)) == min(12, prompts * heads)
    assert len({prompt for prompt, _ in pairs}) == min(prompts, 12)
    assert len({head for _, head in pairs[: max(prompts, heads)]}) == min(heads, 12)


def test_names_in_the_page_are_text(bench):
    folder = bench.folder / "photos"
    methods = {"<script>alert(1)</script>": {"images": "photos/{person}.png", "curve": ["tau", 1]}}
    manifest = bench.manifest(methods=methods, prompts=["<img src=x>"], images=1)
    run_here(Run(manifest, bench.out, RunOptions(show=False)), None)
    scores = [
        Score(row.method, row.person, row.prompt, row.head, row.image, {"id": 0.5, "found": 1.0, "turn": 1.0})
        for unit in units_of(manifest)
        for row in Ledger(bench.out).rows(unit)
    ]
    found = Page(page(collect(manifest, bench.out, scores, ""), bench.out))
    assert found.tags["script"] == 0 and any("<script>alert(1)</script>" in text for text in found.texts)
    assert all(address.startswith("data:") for address in found.addresses)
    assert folder.is_dir()


def test_curves_are_drawn_over_the_settings_that_methods_vary(bench):
    methods = {f"tau = {tau}": {"images": "photos/{person}.png", "curve": ["tau", tau]} for tau in (0, 500, 1000)}
    manifest = bench.manifest(methods=methods)
    scores = [
        Score(method, person, 0, "left", 0, {"id": 0.1 * i + 0.05 * p, "pose": 0.02 * i})
        for i, method in enumerate(methods)
        for p, person in enumerate(("ann", "bob"))
    ]
    (curve,) = curves(collect(manifest, bench.out, scores, ""))
    assert curve[0] == "tau" and curve[1].count("<svg") == 2
    points = [[float(n) for n in pair.split(",")] for pair in re.findall(r'points="([^"]+)"', curve[1])[0].split()]
    xs, ys = zip(*points, strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.11) and ys[0] > ys[1] > ys[2], "up is more"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompts": ["a photo"]}, "needs a shirt and a background"),
        ({"size": [64, 64]}, r"size: the metric 'miniature' needs \[128, 128\]"),
        ({"people": {"photos": "photos"}}, "measures synthetic people only"),
    ],
)
def test_what_cannot_be_measured_is_a_mistake_before_anything_starts(bench, changes, message):
    asked = {"people": {"synthetic": 1_000_000}, "prompts": PROMPTS, "size": [128, 128], "metrics": ["miniature"]}
    with pytest.raises(BadInput, match=message):
        bench.manifest(**asked | changes)


def test_a_run_without_metrics_or_images_cannot_be_scored(bench, drawn):
    with pytest.raises(BadInput, match="asks for no metric"):
        open_metrics(bench.manifest())
    _, manifest, _ = drawn
    with pytest.raises(BadInput, match="has no whole unit"):
        score_run(manifest, bench.out, open_metrics(manifest))


def test_the_commands_score_and_report(drawn, capsys):
    bench, _, scores = drawn
    assert main(["score", str(bench.file), str(bench.out)]) == 0
    assert f"{len(scores)} images are measured" in capsys.readouterr().out
    assert main(["report", str(bench.file), str(bench.out), "--against", "turned"]) == 0
    assert "Paired differences to *turned*" in capsys.readouterr().out
    assert main(["report", str(bench.file), str(bench.out), "--person", "nobody"]) == 2
    assert "no person 'nobody'" in capsys.readouterr().err
    assert read_manifest(bench.file).metrics == ("miniature",)
