# SPDX-License-Identifier: BSD-3-Clause
"""The table of named cases (cases_*.py): each as it is, then all of them with the frames laid out otherwise in memory, with no room around them, and
with copies in between that are cut short at every byte or whose headers are split at every byte."""
from collections import Counter

import pytest

import cases_forward  # noqa: F401
import cases_more  # noqa: F401
import cases_refused  # noqa: F401
from headers import headers_end, inner_of
from table import NAT, SCENES, TUNNELS, batch

CASES = {c.name: c for s in SCENES.values() for c in s.cases}


def judge(c, step, result):
    want, packet = c.steps[step].want, result.packet
    told = (packet["verdict"], packet["reason"])
    assert told == (want.verdict, want.reason), f"step {step}: {packet}"
    if want.out is None:
        assert result.out is None, f"step {step}: something left"
        return
    assert result.out is not None, f"step {step}: nothing left"
    expected = want.out(c.state, c.steps[step].frame(c.state), result.out)
    assert result.out.hex() == expected.hex(), f"step {step}"
    if want.verdict == "forward":
        assert packet["service"] == "default/web" or packet["service"] == ""
        assert packet["backend"].rpartition(":")[0].strip("[]") == c.state.backend, "another backend"


@pytest.mark.parametrize("name", CASES)
def test_case(name):
    c = CASES[name]
    batch(c.scene.name)
    for step, result in enumerate(c.results):
        judge(c, step, result)


@pytest.mark.parametrize("name", SCENES)
def test_counters_are_those_of_the_cases(name):
    played = batch(name).played
    wants = [s.want for c in SCENES[name].cases for s in c.steps]
    verdicts = Counter(w.verdict for w in wants)
    counters = played.counters
    assert counters["received"] == len(wants)
    assert counters["generated"] == verdicts["reply"]
    assert counters["punted"] == verdicts["punt"]
    assert counters["sent"] == verdicts["forward"] + verdicts["reply"]
    assert counters["dropped"] == Counter(w.reason for w in wants if w.verdict in ("drop", "reply"))


# ---------------------------------------------------------------- the same frames, otherwise

def assert_same(name, steps, may_differ=None):
    plain = {(id(e.case), e.step): r for e, r in zip(batch(name).entries, batch(name).results)}
    for entry, result in steps:
        before = plain[id(entry.case), entry.step]
        if not before.same(result) and not (may_differ and may_differ(entry, result)):
            pytest.fail(f"{entry.case.name} step {entry.step} ({entry.layout}): {before.packet} became {result.packet}, "
                        f"{before.out and before.out.hex()} became {result.out and result.out.hex()}")


def want_of(entry):
    return entry.case.steps[entry.step].want


def is_unanswered(entry, result):
    """An answer that had no room in the frame: dropped by the name that it would have been answered with."""
    want = want_of(entry)
    return want.verdict == "reply" and result.packet["verdict"] == "drop" and result.out is None and \
        result.packet["reason"] in (want.reason, "segmented_headers")


def lengths_of(entry):
    """Of the segments but the last, as its layout has them."""
    words = dict(word.split("=") for word in entry.layout.split())
    return [int(n) for n in words["segments"].split(",")] if "segments" in words else []


def is_told_with_less(entry, result):
    """An error of ours that quotes what is in the first segment."""
    want, lengths = want_of(entry), lengths_of(entry)
    if want.verdict != "reply" or result.packet["verdict"] != "reply" or not lengths:
        return False
    frame = entry.case.steps[entry.step].frame(entry.case.state)
    return result.out == want.out(entry.case.state, frame, result.out, n_here=lengths[0])


def has_only_padding_behind(entry, result):
    """Tunnels leave padding behind, but cannot leave a whole segment."""
    end, begin = 14 + len(inner_of(entry.frame)), 0
    for n in lengths_of(entry):
        begin += n if begin + n < len(entry.frame) else 0
    return entry.case.scene.mode in TUNNELS and begin >= end and result.packet["reason"] == "no_headroom"


def may_differ_when_split(entry, result):
    return is_unanswered(entry, result) or is_told_with_less(entry, result) or has_only_padding_behind(entry, result)


@pytest.mark.parametrize("fill", [0x00, 0xff])
@pytest.mark.parametrize("name", SCENES)
def test_nothing_of_the_room_around_leaves(name, fill):
    """Whatever lies around the frame: the same bytes leave."""
    _, steps = batch(name).again(layout=lambda e: f"fill={fill} tailroom=64")
    assert_same(name, steps)


# Scenes whose packets grow; of those with a story, the first packet that cannot decides about the rest.
GROW = [n for n, s in SCENES.items() if s.mode in TUNNELS]
GROW_LATER = ["fullnat-4to6", "fullnat-6to4", "fullnat-toa", "fullnat-proxy"]
PLAIN = [n for n in SCENES if n not in GROW_LATER]


@pytest.mark.parametrize("name", PLAIN)
def test_no_headroom(name):
    """NAT modes need none. What has to grow at its front is dropped by name, or unanswered."""
    mode = SCENES[name].mode

    def may_differ(entry, result):
        if mode in TUNNELS and want_of(entry).verdict == "forward":
            return result.packet["reason"] == "no_headroom" and result.out is None
        return is_unanswered(entry, result)
    _, steps = batch(name).again(layout=lambda e: "headroom=0")
    assert_same(name, steps, may_differ)
    if mode in TUNNELS:
        assert any(r.packet["reason"] == "no_headroom" for _, r in steps)


@pytest.mark.parametrize("name", PLAIN)
def test_no_headroom_but_behind(name):
    """Frames of one segment move back when there is room behind them."""
    _, steps = batch(name).again(layout=lambda e: "headroom=0 tailroom=128")
    assert_same(name, steps)


@pytest.mark.parametrize("behind,headroom", [(0, 128), (1, 128), (3, 128), (-1, 128), (0, 0), (8, 0)])
@pytest.mark.parametrize("name", SCENES)
def test_split_behind_the_headers(name, behind, headroom):
    """The payload begins, or goes on, in another segment: the same bytes leave."""
    if headroom == 0 and name in GROW + GROW_LATER:
        headroom = 52  # the least that every tunnel, PROXY header and option needs

    def layout(entry):
        end, whole = headers_end(entry.frame), len(entry.frame)
        at = end + behind if behind >= 0 else whole + behind
        return f"headroom={headroom} segments={at}" if end <= at < whole else f"headroom={headroom}"
    _, steps = batch(name).again(layout=layout)
    assert_same(name, steps, may_differ_when_split)


@pytest.mark.parametrize("name", SCENES)
def test_many_segments(name):
    def layout(entry):
        end = headers_end(entry.frame)
        return f"segments={end},1,3,5,2,64,9" if end < len(entry.frame) else ""
    _, steps = batch(name).again(layout=layout)
    assert_same(name, steps, may_differ_when_split)


@pytest.mark.parametrize("name", SCENES)
def test_headers_split_at_every_byte(name):
    """Headers that are not in the first segment: refused by that name, no state made, and the true frame goes its way."""
    def copies(entry):
        end = min(headers_end(entry.frame, n_quoted=8), len(entry.frame))
        return [(entry.frame, f"segments={at}") for at in range(1, end)]
    split, steps = batch(name).again(copies=copies)
    assert split
    for entry, result in split:
        assert result.out is None and result.packet["verdict"] in ("drop", "punt"), (entry, result)
    assert any(r.packet["reason"] == "segmented_headers" for _, r in split)
    assert_same(name, steps)


@pytest.mark.parametrize("name", SCENES)
def test_cut_short_at_every_byte(name):
    """What is missing bytes is never taken for whole: nothing leaves, no state made, and the whole frame goes its way."""
    def copies(entry):
        whole = min(len(entry.frame), 14 + len(inner_of(entry.frame)) if len(entry.frame) >= 34 else len(entry.frame))
        return [(entry.frame[:n], "") for n in range(1, whole)]
    cut, steps = batch(name).again(copies=copies)
    assert cut
    for entry, result in cut:
        assert result.out is None and result.packet["verdict"] in ("drop", "punt"), (entry, result)
    assert_same(name, steps)


@pytest.mark.parametrize("name", SCENES)
def test_cut_short_with_true_lengths(name):
    """The same within headers, with an IP length (and checksum) that agrees: L4 is short."""
    def copies(entry):
        return shortened(entry.frame) if want_of(entry).verdict in ("forward", "reply") else []
    cut, steps = batch(name).again(copies=copies)
    assert cut
    for entry, result in cut:
        assert result.out is None and result.packet["verdict"] in ("drop", "punt"), (entry.frame.hex(), result)
    assert_same(name, steps)


def shortened(frame):
    copies = []
    is_v4 = frame[14] >> 4 == 4
    for n in range(34 if is_v4 else 54, min(headers_end(frame, n_quoted=0), len(frame))):
        cut = bytearray(frame[:n])
        cut[16 if is_v4 else 18:18 if is_v4 else 20] = (n - (14 if is_v4 else 54)).to_bytes(2, "big")
        if is_v4:
            cut[24:26] = b"\0\0"
            total = sum(int.from_bytes(cut[k:k + 2], "big") for k in range(14, 34, 2))
            while total >> 16:
                total = (total & 0xffff) + (total >> 16)
            cut[24:26] = (~total & 0xffff).to_bytes(2, "big")
        copies.append((bytes(cut), ""))
    return copies


def test_there_are_as_many_as_promised():
    assert len(CASES) >= 200
    for mode in NAT + TUNNELS + ["l2dsr"]:
        for family in ("v4", "v6"):
            assert sum(c.scene.mode == mode and c.name.endswith(family) for c in CASES.values()) >= 20
