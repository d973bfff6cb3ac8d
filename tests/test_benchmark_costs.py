"""What whole sets cost on paper, worked by hand."""

import copy

import pytest

from common.benchmark_costs import KINETICS, UCF101, cost_table, duration, price, stages, total


def side(name, cores, units=10):
    return {"name": name, "seconds": [99.0], "core_seconds": [cores * units], "units": units, "unit": "thing"}


def clips(name, **about):
    facts = {"clips": 8, "codec": "mpeg4", "frames": 180, "width": 320, "height": 240, "pixels": 1, "bytes": 1}
    return {f"clips: {name}": facts | {"ucf101": False} | about}


@pytest.fixture
def found():
    a, b = [], []
    for name, decoding, loading, checking in (("made", 9, 9, 9), ("fight", 2.0, 2.5, 0.5), ("ucf", 3.6, 3.6, 0.36)):
        a += [side(f"{name}: decoding alone", decoding), side(f"{name}: 20 uniform frames at 96", loading)]
        a.append(side(f"{name}: checking (hash, number of frames)", checking))
    for kind, scale in (("photos", 1), ("clips of fight", 2), ("clips of ucf", 2)):
        b += [side(f"{kind}: decoding alone", 1), side(f"{kind}: encoding alone, fp32", 0.2 * scale)]
        b.append(side(f"{kind}: encoding alone, bf16", 0.1 * scale))
    a.append(side("hashing", 0.03))
    b.append(side("photos: checking (hash, decoding)", 3.6))
    facts = clips("made") | clips("fight", codec="h264", pixels=340 * 256 * 100, bytes=KINETICS.size - 10**8)
    facts |= clips("ucf", ucf101=True)
    return {
        "options": {"frames": 20, "image_size": 96, "encoder": "resnet18"},
        "parts": {
            "a": {"sides": a, "figures": [], "notes": [], "facts": facts},
            "b": {"sides": b, "figures": [], "facts": {"encoder": {"grid": [512, 3, 3]}}},
            "c": {
                "sides": [side("clips: an epoch of training, from the cache", 0.36)],
                "figures": [],
            },
            "f": {"sides": [side("starting 1 process(es): Python and its imports", 0)], "figures": []},
            "g": {"sides": [], "figures": [{"what": "squares a second, bf16", "value": 2664.0}]},
        },
    }


def test_each_set_from_clips_of_its_kind(found):
    photos, ucf101, kinetics = price(found).prices
    assert photos.bytes == 57_331 * 512 * 3 * 3 * 2 and photos.training is None
    assert ucf101.loading == pytest.approx(13_320 * 3.6) and ucf101.checking == pytest.approx(13_320 * 0.36)
    assert ucf101.squares == 266_400 and ucf101.fp32 == pytest.approx(266_400 * 0.4)
    assert ucf101.bytes == 266_400 * 512 * 2 and ucf101.training == pytest.approx(13_320 * 0.36)
    # H.264: 2 s for 100 frames of 340×256 are 6 s for 300, and 0.5 s for what else loading is; 100 MB more to hash
    assert kinetics.loading == pytest.approx(306_245 * 6.5) and kinetics.checking == pytest.approx(306_245 * 3.5)


def test_a_made_clip_where_there_is_no_ucf101(found):
    facts = found["parts"]["a"]["facts"]
    del facts["clips: ucf"]
    (ucf101,) = (priced for priced in price(found).prices if priced.data is UCF101)
    assert ucf101.loading == pytest.approx(13_320 * 9) and "a made clip" in ucf101.basis
    facts["clips: fight"]["codec"] = "mpeg4"
    assert price(found).lacking == ["Kinetics-400 is not priced: no folder of --data has clips in H.264"]


def test_stages_and_the_longest_of_them(found):
    paper = price(found)
    ucf101 = paper.prices[1]
    of = stages(ucf101, paper, 1)
    # 13,320 clips on 16 cores: 3.6 s and 0.36 s each; 266,400 squares at 2,664 a second
    assert of == pytest.approx({"starting": 99, "checking": 299.7, "loading": 2997, "encoding": 100})
    assert total(of) == pytest.approx(99 + 299.7 + 2997)
    assert stages(ucf101, paper, 8) == pytest.approx(
        {"starting": 99, "checking": 599.4, "loading": 374.625, "encoding": 12.5}
    )  # the others check after the first
    table = cost_table(found)
    assert "The longest stage of UCF101: loading on 1 to 4 GPUs, checking on 8 GPUs and more." in table
    assert f"{duration(99 + 599.4 + 374.625)} (checking: 10.0 min)" in table


def test_no_rate_is_made_up(found):
    del found["parts"]["g"]
    assert "no GPU was measured" in cost_table(found) and "8 GPUs" not in cost_table(found)
    known = copy.deepcopy(found)
    known["options"] |= {"encoder": "mobilenet_v2"}
    assert price(known).rate is None  # 96 pixels
    for part in known["parts"]["a"]["sides"]:
        part["name"] = part["name"].replace("at 96", "at 224")
    known["options"] |= {"image_size": 224}
    assert "5,000 squares a second in bf16 (assumed" in cost_table(known)


def test_without_figures_nothing_is_priced(found):
    for part in "abcfg":
        del found["parts"][part]
    assert "nothing is priced" in cost_table(found)
