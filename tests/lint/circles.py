"""Imports go in no circle, whether they stand at the top, in a function or under TYPE_CHECKING: what two files know
of each other is one subject, or something that stands below both. (The layers of pyproject.toml say which is down.)
"""

from graphlib import CycleError, TopologicalSorter

import grimp

PACKAGES = ("nexus_client", "propolis_stub", "sim_sled")


def imports():
    """Of every module of ours: the modules of ours that it imports, anywhere in it."""
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def problems(graph):
    """One circle of a graph like that of `imports`, if it has any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        # each imports the one before it
        return [f"imports go in a circle: {' -> '.join(reversed(error.args[1]))}"]
    return []
