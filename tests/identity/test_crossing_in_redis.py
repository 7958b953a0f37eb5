"""The same attempts where conversations are kept in Redis."""

from tests.identity import test_crossing as attempts
from tests.identity.conftest import World


def test_in_redis_too(redis_world: World) -> None:
    for by in ("key", "token"):
        attempts.test_the_same_id_of_another_caller_is_another_conversation(redis_world, by, "POST /chat")
        attempts.test_lists_hold_ones_own_under_ones_own_ids(redis_world, by)
        attempts.test_nobody_renames_rates_or_deletes_anothers(redis_world, by)
        attempts.test_nobody_resumes_or_stops_anothers_answer(redis_world, by)
