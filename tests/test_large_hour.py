"""A seal that takes more time than the function has, in small; `make large-hour OBJECTS=200000` does it in earnest."""

from large_hour import check, seal


def test_an_hour_is_sealed_in_several_invocations_of_which_one_is_killed(tmp_path):
    """The sealer stops before its time is up, invokes itself again through its checkpoint, and a killed run is made up for."""
    result = seal(tmp_path, objects=12_000, timeout_seconds=3, progress=lambda line: None)
    print(f"{result.seconds:.1f} s, {result.invocations} invocations, {result.kills} killed, {result.peak_mib:.1f} MiB")
    check(result, 12_000)
    assert result.invocations > 1
