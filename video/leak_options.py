"""The options of `scripts/show_leak.py`: those of a training, and the seeds.

Belongs here: declarations only, nothing that imports torch.
"""

from typing import Annotated

from pydantic import Field

from common.config import options
from common.errors import UserError
from common.study import Seed
from video.options import TrainVideoOptions


@options
class ShowLeakOptions(TrainVideoOptions):
    """Show what a leak is worth: train the same model on the group split and on a random one, and print both.

    The random split mixes the clips of train and test, whatever their group (source video); the sizes and the
    validation clips stay. --output is a folder that holds the runs (default runs/leak-NAME-OF-THE-DATA): group-seed0,
    random-seed0 and so on. Finished runs are not run again and interrupted ones go on, so that the same command goes
    on where it stopped; --overwrite starts all of them anew.

    examples:
      python scripts/show_leak.py --config configs/video/fight.yaml --data FOLDER --weights imagenet
      python scripts/show_leak.py --features vgg16.safetensors --index index.csv --head mean --seeds 0 1 2 3 4
    """

    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0, 1, 2)
    """a training on each split with each; the splits are those of --split-seed with all of them, so that the spread
    shown is that of trainings, not of splits"""

    def __post_init__(self) -> None:
        for given, why in (
            (self.resume, "--resume: the same command goes on by itself; leave it out"),
            (self.seed != 0, f"--seed {self.seed}: write --seeds {self.seed}"),
            (len(set(self.seeds)) < len(self.seeds), f"--seeds {' '.join(map(str, self.seeds))}: one comes twice"),
            (not self.test, "--no-test: a leak shows in the score of test alone; leave it out"),
            (self.random_split, "--random-split: both splits are trained on; leave it out"),
            (
                self.random_test_fraction is not None or self.swap_splits,
                "--random-test-fraction and --swap-splits: the two splits compared have the same sizes; leave them out",
            ),
            (self.allow_leaky_split, "--allow-leaky-split: the group split must not leak, or there is no gap to see"),
            (
                self.data is None and self.features is None,
                "the embedded clips are each a group of their own, so that nothing can leak; give --data or --features",
            ),
        ):
            if given:
                raise UserError(why)
        fold = self.fold
        TrainVideoOptions.__post_init__(self)
        self.fold = fold  # if not given, each seed has its own
