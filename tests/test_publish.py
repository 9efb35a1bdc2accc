"""README and model cards say what the result files say."""

import pytest

from eval.benchmarks import publish

pytestmark = pytest.mark.skipif(
    not (publish.RESULTS / "default" / "metrics.json").is_file(), reason="results are in the repository alone"
)


@pytest.mark.parametrize("path", publish.documents(), ids=lambda path: path.parent.name)
def test_figures_are_those_of_the_result_files(path):
    text = path.read_text(encoding="utf-8")
    assert publish.MARKED.search(text)
    assert publish.rewritten(text) == text, "run python -m eval.benchmarks.publish"


@pytest.mark.parametrize("name", ["default", "edge"])
def test_a_bundled_detector_is_the_one_whose_results_are_kept(name):
    record, figures = publish._record(name), publish._figures(name)
    assert record["eval"]["eer"] == figures["metrics"]["eer"]["value"]
    assert record["eval"]["protocol_sha256"] == figures["files"]["protocol"]["sha256"]
    assert record["threshold"]["score"] == figures["operating_point"]["threshold"]


def test_only_marked_parts_change():
    text = "before\n<!-- figures: space -->\nold\n<!-- end -->\nafter\n"
    made = publish.rewritten(text)
    assert made.startswith("before\n")
    assert made.endswith("\nafter\n")
    assert "old" not in made
    with pytest.raises(ValueError, match="no figures are called nothing"):
        publish.rewritten("<!-- figures: nothing -->\n\n<!-- end -->")
