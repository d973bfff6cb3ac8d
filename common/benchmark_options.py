"""The options of `scripts/benchmark.py`: typed, with their help texts.

Belongs here: declarations only, nothing that imports torch. What is measured is in `common/benchmark.py`.
"""

from typing import Annotated, Literal

from pydantic import Field

from common.config import options
from common.errors import UserError
from common.options import Count

Part = Literal["a", "b", "c", "d", "e", "f", "g"]


@options
class BenchmarkOptions:
    """Measure this machine and this code side by side, in one run: medians of several repeats, as JSON and as a table
    with the aims beside them.

    a loading clips against decoding them; b extraction of features against decoding and encoding alone; c an epoch from
    the cache against encoding again; d our training step against a loop written by hand; e memory at 10 times the data;
    f two processes against one, with whole models and with one shared out; g (with a GPU) its throughput, its
    precisions, and whether it waits for data.

    examples:
      python scripts/benchmark.py --output measured.json
      python scripts/benchmark.py --output measured.json --data FIGHT UCF101 FOOD --weights mobilenet_v2.safetensors
      python scripts/benchmark.py --output measured.json --only a c --repeats 3
      python scripts/benchmark.py --measured measured.json --page docs/scaling.md
    """

    output: str | None = None
    """FILE.json with all figures; every repeat, and the machine (nothing that tells whose)"""
    overwrite: bool = False
    """replace --output"""
    only: tuple[Part, ...] = ()
    """parts to measure; default all (g only with a GPU)"""
    data: tuple[str, ...] = ()
    """folders of clips, and of photos; what none has is made: moving shapes, coloured shapes"""
    clips: Count = 16
    """how many clips of each folder are encoded, evenly spread over it; part a loads 8 of them at most"""
    photos: Count = 512
    """how many photos, evenly spread over those of --data"""
    squares: Count | None = None
    """how many an extraction has at least: few files are taken several times over (default 960, on a GPU 8192)"""
    encoder: str = "mobilenet_v2"
    """whose features are extracted"""
    weights: str = "none"
    """imagenet, none (random) or a file"""
    image_size: Annotated[int, Field(ge=32, le=1024)] = 224
    """side in pixels of what it sees"""
    frames: Count = 20
    """of a clip, uniform"""
    repeats: Count = 5
    """of what is timed, in turn; the median counts (the plain ways of part b: two; epochs of part c: half as many)"""
    compile: bool = False
    """measure the encoder compiled, too (torch.compile; needs a C++ compiler, and a minute)"""
    measured: str | None = None
    """FILE.json of an earlier run: measure nothing, show it again"""
    page: str | None = None
    """Markdown page whose tables, between its marks, are made of these figures"""

    def __post_init__(self) -> None:
        from common.zoo import check_encoder_name

        check_encoder_name(self.encoder)
        if (self.output is None) == (self.measured is None):
            raise UserError("give --output FILE.json to measure, or --measured FILE.json to show what was measured")
        if self.output is not None and not self.output.endswith(".json"):
            raise UserError(f"--output {self.output}: name it .json")
