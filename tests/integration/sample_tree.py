# SPDX-License-Identifier: LGPL-2.1-or-later
"""sample_tree.py PID: every 5 ms, by the kernel's word, the resident private and shared
memory of all descendants of PID but uhmm's own programs. Prints the highest sum, in
bytes, when PID has ended."""
import os
import sys
import time

OWN = ("uhmm", "uhmmd")


def stat_of(pid):
    """(parent, command), or None."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            head, _, tail = file.read().rpartition(")")
    except OSError:
        return None
    return int(tail.split()[1]), head.partition("(")[2]


def descendants(root):
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = stat_of(name)
            if stat:
                parents.setdefault(stat[0], []).append((int(name), stat[1]))
    found, todo = [], [root]
    while todo:
        for pid, command in parents.get(todo.pop(), []):
            todo.append(pid)
            if command not in OWN:
                found.append(pid)
    return found


def resident_bytes(pid):
    total = 0
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith(("RssAnon:", "RssShmem:")):
                    total += int(line.split()[1]) * 1024
    except OSError:
        return 0
    return total


def main():
    root = int(sys.argv[1])
    peak, tree, turn = 0, [], 0
    while True:
        if turn % 20 == 0:
            stat = stat_of(root)
            if not stat or not os.path.exists(f"/proc/{root}/exe"):
                break
            tree = descendants(root)
        turn += 1
        peak = max(peak, sum(resident_bytes(pid) for pid in tree))
        time.sleep(0.005)
    print(peak)


main()
