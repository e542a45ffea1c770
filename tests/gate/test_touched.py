"""A failure says which changed files it concerns, and whose change that was; or nothing."""

import pytest
from builders import HOSTILE, SOURCE, TWO_LEGS, judged, markdown_tokens, parse, report
from samples import Sample

from tiergate import touched
from tiergate.decide import decide
from tiergate.render import formats
from tiergate.render.formats import Rendering
from tiergate.repository import Repository
from tiergate.verdict import Evidence, Failure, Finding, Touch

CRITERION = parse(TWO_LEGS).criterion("A")


@pytest.fixture
def sample(tmp_path):
    """A repository with a base, and a commit on top that touched ``src/a.py``."""
    sample = Sample(tmp_path / "repository", tmp_path)
    for name in ("src/a.py", "src/b.py", "tests/test_a.py", "other.py"):
        sample.write(name, "old\n")
    sample.commit()
    sample.git("tag", "base")
    sample.write("src/a.py", "new\n")
    commit(sample, "Round prices", "Ann Lee")
    return sample


def commit(sample, subject, author="A"):
    sample.git("add", "-A")
    sample.git("commit", "-q", "-m", subject, f"--author={author} <x@example.org>")


def failing(path="src/a.py", details="", **more):
    failure = Failure("tests/test_a.py::test", "failed", details=details, path=path, line=1)
    return judged("A", status="fail", evidence=Evidence(failures=[failure]), **more)


def told(sample, verdict, base=""):
    (found,) = touched.Change(Repository(sample.root), base).attach([verdict], lambda _: CRITERION)
    return found.evidence.touched


def test_the_last_commit_of_the_change_is_named_with_its_author(sample):
    commit_id = sample.git("rev-parse", "--short", "HEAD").strip()
    sample.write("src/b.py", "new\n")
    commit(sample, "Touch another file")
    assert told(sample, failing(), "base") == [
        Touch("src/a.py", commit_id, "Ann Lee", "Round prices")
    ]


def test_an_older_commit_is_not_blamed(sample):
    assert told(sample, failing("src/b.py"), "base") == []
    sample.write("other.py", "new\n")
    commit(sample, "Touch another file")
    assert told(sample, failing()) == []  # without a base only the latest commit counts


def test_without_a_base_the_latest_commit_counts(sample):
    assert [(t.path, t.author) for t in told(sample, failing())] == [("src/a.py", "Ann Lee")]


@pytest.mark.parametrize("base", ["", "base"])
def test_what_is_not_committed_is_nobody_elses(sample, base):
    sample.write("src/a.py", "newer\n")
    sample.write("src/new.py", "")
    finding = Finding("rule", "src/new.py", 1, 1, "unsafe")
    assert told(sample, failing(), base) == [Touch("src/a.py")]
    unsafe = judged("A", status="fail", evidence=Evidence(findings=[finding]))
    assert told(sample, unsafe, base) == [Touch("src/new.py")]


def test_what_the_base_alone_changed_is_not_the_heads(sample):
    sample.git("checkout", "-q", "-b", "on", "base")
    sample.write("src/b.py", "newer\n")
    commit(sample, "Move the base on")
    sample.git("checkout", "-q", "main")
    assert told(sample, failing("src/b.py"), "on") == []
    assert [touch.author for touch in told(sample, failing(), "on")] == ["Ann Lee"]


def test_the_author_of_a_merge_is_not_blamed_for_what_it_brought(sample):
    sample.git("checkout", "-q", "--detach", "base")
    sample.git("merge", "-q", "--no-ff", "-m", "Merge the head", "main")
    assert [touch.author for touch in told(sample, failing(), "base")] == ["Ann Lee"]


def test_a_shallow_clone_blames_nobody_for_what_was_cut_off(sample, tmp_path):
    sample.git("clone", "-q", "--depth=1", f"file://{sample.root}", str(tmp_path / "clone"))
    clone = Sample(tmp_path / "clone", tmp_path)
    assert told(clone, failing()) == []
    clone.write("src/a.py", "newer\n")
    assert told(clone, failing()) == [Touch("src/a.py")]


def test_where_git_cannot_tell_there_is_nothing(sample, tmp_path):
    plain = Sample(tmp_path / "plain", tmp_path)
    plain.write("src/a.py", "")
    assert told(plain, failing()) == []
    plain.git("init", "-q", "--template=")  # no commit yet
    assert told(plain, failing()) == []
    assert told(sample, judged("A")) == []  # it passed


def test_the_nearest_to_the_failure_comes_first():
    changed = ["deep/b.py", "src/a.py", "src/c.py", "tests/test_a.py", "x.py"]
    remedy = {"remedy": type(CRITERION.remedy)(files=["deep"])}
    verdict = failing(details='File "/elsewhere/src/c.py", line 3', **remedy)
    assert touched.concerned(changed, verdict, CRITERION) == [
        "src/a.py",
        "tests/test_a.py",
        "src/c.py",
        "deep/b.py",
    ]


def test_the_criterions_paths_count_where_nothing_nearer_was_changed():
    changed = ["src/z.py", "tests/a.py"]
    assert touched.concerned(changed, failing(), CRITERION) == ["tests/a.py"]
    assert touched.concerned([*changed, "src/a.py"], failing(), CRITERION) == ["src/a.py"]


def test_long_words_in_an_output_are_read_in_bounded_time():
    verdict = failing(details="a/" * 10**6)
    assert touched.concerned(["src/a.py"], verdict, CRITERION) == ["src/a.py"]


def test_the_files_and_what_git_is_asked_are_bounded(sample):
    for number in range(touched.MOST + 3):
        sample.write(f"many/{number}.py", "")
    verdict = failing(remedy=type(CRITERION.remedy)(files=["many"]))
    assert len(told(sample, verdict)) == touched.MOST


@pytest.mark.parametrize("name", ["text", "html", "markdown", "pr-comment"])
def test_every_report_for_people_shows_it(name):
    shown = rendered(name, [Touch("src/a.py", "3fa2b1c", "Ann Lee", "Round"), Touch("src/b.py")])
    assert "src/a.py: 3fa2b1c Ann Lee, Round" in shown
    assert "src/b.py: uncommitted changes" in shown


def test_authors_and_subjects_draw_nothing():
    for hostile in HOSTILE:
        touches = [Touch("a.py", "3fa2b1c", hostile, hostile)]
        kinds = {token.type for token in markdown_tokens(rendered("markdown", touches))}
        assert not kinds & {"image", "link_open", "html_inline"}, hostile
        text = rendered("text", touches)
        assert "\033" not in text, hostile
        assert sum("3fa2b1c" in line for line in text.splitlines()) == 1, hostile
        assert "<img" not in rendered("html", touches), hostile


def rendered(name, touches):
    verdict = judged("A", status="fail", evidence=Evidence(touched=touches))
    of = parse(TWO_LEGS)
    legs = [report(of, verdicts=[verdict])]
    decision = decide(of, legs, devices=["cpu"], source=SOURCE)
    return formats.render(name, Rendering(decision, tuple(legs)))
