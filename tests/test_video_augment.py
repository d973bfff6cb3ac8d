"""Views of clips: the same seed, the same view; what is drawn per clip and what per frame; report R0's parameters."""

import pytest
import torch
from torchvision.transforms import v2

from common.errors import UserError
from video.augment import AUGMENTATIONS, augment_clip, transforms


def random_clip(frames: int = 8, size: int = 32) -> torch.Tensor:
    return torch.randint(0, 256, (frames, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def still_clip(frames: int = 16, size: int = 32) -> torch.Tensor:
    """One frame again and again: frames of its view differ only by what was drawn anew."""
    return random_clip(1, size).expand(frames, -1, -1, -1)


def boxes(view: torch.Tensor) -> list[tuple[int, int, int, int]]:
    """x, y, width and height of each frame's black region, a full rectangle; frames without one are left out."""
    found = []
    for black in (view == 0).all(1):
        ys, xs = torch.nonzero(black, as_tuple=True)
        if len(ys):
            x, y, width, height = int(xs.min()), int(ys.min()), len(xs.unique()), len(ys.unique())
            assert black[y : y + height, x : x + width].all() and black.sum() == width * height
            found.append((x, y, width, height))
    return found


# -- chance -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["clip", "frame"])
@pytest.mark.parametrize("names", [(name,) for name in AUGMENTATIONS] + [AUGMENTATIONS])
def test_equal_seeds_give_equal_views(names, per):
    clip = random_clip()
    kept = clip.clone()
    views = [augment_clip(clip, names, per=per, seed=(7, s)) for s in range(10)]
    assert torch.equal(clip, kept)
    torch.rand(5)  # what is drawn outside does not matter
    for s, view in enumerate(views):
        assert view.dtype == torch.uint8 and view.shape == clip.shape
        assert torch.equal(view, augment_clip(clip, names, per=per, seed=(7, s)))
    different = {tuple(view.flatten().tolist()) for view in views}
    assert len(different) == 1 if names == ("blur",) else len(different) > 1
    if names == ("blur",):
        assert not torch.equal(views[0], clip)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_the_global_chance_goes_on_undisturbed(per):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    augment_clip(random_clip(), AUGMENTATIONS, per=per, seed=(1,))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_frames_view_does_not_depend_on_the_frames_after_it():
    clip = random_clip()
    view = augment_clip(clip, AUGMENTATIONS, per="frame", seed=(1,))
    assert torch.equal(augment_clip(clip[:3], AUGMENTATIONS, per="frame", seed=(1,)), view[:3])


def test_the_order_of_the_names_does_not_matter():
    clip = random_clip()
    view = augment_clip(clip, AUGMENTATIONS, per="frame", seed=(1,))
    assert torch.equal(augment_clip(clip, AUGMENTATIONS[::-1], per="frame", seed=(1,)), view)


def test_no_names_change_nothing():
    assert torch.equal(augment_clip(random_clip(), (), per="frame", seed=(1,)), random_clip())


# -- per clip, per frame ----------------------------------------------------------------------------------------------


def test_one_box_for_the_clip_or_one_for_each_frame():
    clip = still_clip() | 1  # nothing in it is black
    views = [augment_clip(clip, ["erase"], per="clip", seed=(s,)) for s in range(40)]
    erased = [boxes(view) for view in views]
    assert all(len(found) in (0, len(clip)) and len(set(found)) <= 1 for found in erased)
    assert 10 <= sum(map(bool, erased)) <= 30  # p = 0.5
    assert len({found[0] for found in erased if found}) > 5

    view = augment_clip(clip, ["erase"], per="frame", seed=(2,))
    found = boxes(view)
    assert 3 <= len(found) <= 13 and len(set(found)) == len(found)
    outside = ~(view == 0).all(1, keepdim=True)
    assert torch.equal(view, clip * outside)


def test_boxes_are_squares_of_1_to_10_percent():
    clip = torch.full((200, 3, 100, 100), 200, dtype=torch.uint8)
    found = boxes(augment_clip(clip, ["erase"], per="frame", seed=(1,)))
    assert 70 <= len(found) <= 130
    assert all(width == height and 10 <= width <= 32 for _, _, width, height in found)


def test_colors_hold_for_the_clip_or_change_with_each_frame():
    clip = still_clip()
    view = augment_clip(clip, ["color"], per="clip", seed=(1,))
    assert torch.equal(view, view[:1].expand_as(view)) and not torch.equal(view, clip)
    view = augment_clip(clip, ["color"], per="frame", seed=(1,))
    assert len({tuple(frame.flatten().tolist()) for frame in view}) == len(clip)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_crop_and_flip_are_the_same_for_all_frames(per):
    clip = still_clip()
    for s in range(8):
        view = augment_clip(clip, ["crop", "flip"], per=per, seed=(s,))
        assert torch.equal(view, view[:1].expand_as(view)) and not torch.equal(view, clip)


@pytest.mark.parametrize("per", ["clip", "frame"])
def test_a_flipped_clip_is_the_clip_or_its_mirror(per):
    clip, mirror = random_clip(), random_clip().flip(-1)
    mirrored = []
    for s in range(40):
        view = augment_clip(clip, ["flip"], per=per, seed=(s,))
        mirrored.append(torch.equal(view, mirror))
        assert mirrored[-1] or torch.equal(view, clip)
    assert 10 <= sum(mirrored) <= 30


# -- report R0 --------------------------------------------------------------------------------------------------------


def test_blur_and_erasing_are_those_of_report_r0():
    known = transforms(120)
    assert tuple(known) == AUGMENTATIONS
    assert all(type(transform).__module__.startswith("torchvision.transforms.v2") for transform in known.values())
    blur, erase = known["blur"], known["erase"]
    assert type(blur) is v2.GaussianBlur and tuple(blur.kernel_size) == (11, 11) and tuple(blur.sigma) == (1, 1)
    assert type(erase) is v2.RandomErasing and erase.p == 0.5 and erase.value == [0]
    assert tuple(erase.scale) == (0.01, 0.1) and tuple(erase.ratio) == (1, 1)


def test_the_view_is_blurred_and_then_erased():
    clip = still_clip() | 1
    blurred = v2.functional.gaussian_blur(clip, [11, 11], [1.0, 1.0])
    view = augment_clip(clip, ["erase", "blur"], per="frame", seed=(2,))
    black = (view == 0).all(1, keepdim=True)
    assert black.any() and len(boxes(view)) > 3  # sharp boxes
    assert torch.equal(view, blurred * ~black)


def test_the_other_parameters():
    known = transforms(48)
    assert known["flip"].p == 0.5
    assert tuple(known["crop"].size) == (48, 48) and tuple(known["crop"].scale) == (0.5, 1)
    color = known["color"]
    for each in (color.brightness, color.contrast, color.saturation):
        assert each == pytest.approx((0.8, 1.2))
    assert color.hue is None


# -- sizes and refusals -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("per", ["clip", "frame"])
@pytest.mark.parametrize("size", [6, 16])
def test_tiny_frames(size, per):
    view = augment_clip(random_clip(2, size), AUGMENTATIONS, per=per, seed=(1,))
    assert view.shape == (2, 3, size, size) and view.dtype == torch.uint8


def test_refusals():
    clip = random_clip(2, 8)
    with pytest.raises(UserError, match="'turn'.*crop, flip, color, blur, erase"):
        augment_clip(clip, ["flip", "turn"], per="clip", seed=(1,))
    with pytest.raises(UserError, match="'video'.*clip, frame"):
        augment_clip(clip, ["flip"], per="video", seed=(1,))
    with pytest.raises(UserError, match="more than 5 pixels a side, these have 5"):
        augment_clip(clip[..., :5, :5], ["blur"], per="clip", seed=(1,))
    with pytest.raises(TypeError, match="uint8"):
        augment_clip(clip.float(), ["flip"], per="clip", seed=(1,))
