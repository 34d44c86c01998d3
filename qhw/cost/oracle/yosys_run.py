"""Runs one list of Yosys commands, in a process of its own: state would leak into the next design.

Reads {"megabytes": ..., "commands": [...]} from stdin. Started by :mod:`qhw.cost.oracle.synth` as a plain
file, so that nothing of this package is imported.
"""

import json
import resource
import sys

if __name__ == "__main__":
    given = json.load(sys.stdin)
    limit = given["megabytes"] << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    from pyosys import libyosys

    design = libyosys.Design()
    for command in given["commands"]:
        libyosys.run_pass(command, design)
