"""Measures a method's claim: trains its runs with paired seeds, compares its arms, writes `claims/results/<card>.json`.

python -m launch.claim X04 [--seeds=5] [--quick] [--workdir=runs/claims]
python -m launch.claim --table

What is trained and measured is kept in the workdir, one folder a seed and run: the same command goes on after a kill. Codes are those of
`launch.train`.
"""

from absl import flags

from launch import process

_SEEDS = flags.DEFINE_integer("seeds", 5, "paired seeds, from 0 on")
_QUICK = flags.DEFINE_bool("quick", False, "shortened runs and two seeds: shows that the claim can be measured, and writes no result")
_WORKDIR = flags.DEFINE_string("workdir", "runs/claims", "folder of the runs")
_TABLE = flags.DEFINE_bool("table", False, "only write docs/claims.md from the results that are there")


def main(arguments) -> None:
    process.start()
    from claims import CLAIMS, harness, page
    from core.config import ConfigError, choose
    from core.storage import on_this_machine

    with process.exit_codes():
        if _TABLE.value:
            print(page.write(harness.RESULTS))
            return
        if len(arguments) != 2:
            raise ConfigError(f"give one claim: python -m launch.claim CARD; there are: {', '.join(CLAIMS)}.")
        card = arguments[1]
        seeds = 2 if _QUICK.value else _SEEDS.value
        folder = on_this_machine(_WORKDIR.value, "--workdir")
        found = harness.measure(card, choose(CLAIMS, card, "the claim"), folder, seeds, quick=_QUICK.value)
        print(page.summary(found))


if __name__ == "__main__":
    process.run(main)
