"""What docs/choose.md says was measured is what the committed results of claims say."""

import json
import re

from claims import CLAIMS, harness

PAGE = harness.ROOT / "docs" / "choose.md"
SAID = re.compile(
    r"\[(?P<card>\w+)\]\(claims\.md#[\w-]+\): (?P<arm>\S+) - (?P<against>\S+) (?P<mean>[+-]\d\.\d{3}), (?P<verdict>[a-z ]+?) *[|;]"
)
NOTHING = re.compile(r"(\w+): no result yet")


def test_verdicts_are_those_of_the_results():
    found = list(SAID.finditer(PAGE.read_text()))
    assert len(found) == PAGE.read_text().count("](claims.md#") > 0
    for said in found:
        result = json.loads((harness.RESULTS / f"{said['card']}.json").read_text())
        (one,) = [c for c in result["contrasts"] if (c["arm"], c["against"]) == (said["arm"], said["against"])]
        assert (f"{one['mean']:+.3f}", one["verdict"]) == (said["mean"], said["verdict"])


def test_every_claim_is_there_and_says_so_where_it_has_no_result():
    measured, rest = {said["card"] for said in SAID.finditer(PAGE.read_text())}, set(NOTHING.findall(PAGE.read_text()))
    assert measured == {path.stem for path in harness.RESULTS.glob("*.json")}
    assert measured | rest == set(CLAIMS) and not measured & rest
