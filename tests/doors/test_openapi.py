"""Every documented door under generated requests: no server error, nothing the document does not name."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from tests.service import Live

EXAMPLES = 12  # requests per operation


@pytest.fixture(scope="session")
def api(live: Live) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.timeout(300)
def test_generated_requests_get_the_documented_answers(case: schemathesis.Case) -> None:
    case.call_and_validate(timeout=30)
