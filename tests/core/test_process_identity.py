"""A process is told apart from all others, dead or alive, under the same number or not."""

import json
import os
import subprocess
import sys

from vitrine.core.process_identity import is_gone, this_process

IDENTIFY = (
    "import json; from vitrine.core.process_identity import this_process; print(json.dumps(this_process()))"
)


def test_a_process_is_gone_once_it_has_ended_also_before_its_parent_asks():
    assert is_gone(this_process()) is False
    with subprocess.Popen([sys.executable, "-c", IDENTIFY + "; input()"], stdin=-1, stdout=-1) as child:
        process = json.loads(child.stdout.readline())
        assert process["pid"] == child.pid and is_gone(process) is False
        child.stdin.write(b"\n")
        child.stdin.flush()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie
        assert is_gone(process) is True
    assert is_gone(process) is True


def test_a_later_process_with_the_same_number_is_another():
    assert is_gone(this_process() | {"began": "1"}) is True
    assert is_gone(this_process() | {"began": "alive"}) is False  # recorded where its start could not be read


def test_of_other_machines_and_of_nonsense_nothing_is_known():
    assert is_gone(this_process() | {"machine": "another"}) is None
    assert is_gone(None) is is_gone({}) is is_gone(this_process() | {"pid": "x"}) is None
    assert is_gone(this_process() | {"pid": 2**100}) is None
