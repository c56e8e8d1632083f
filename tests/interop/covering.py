"""Covering arrays: few combinations in which every possible group of `strength` values stands together.

Greedy: each combination begins with a group that is still missing, and takes for every other parameter
the value that adds most groups, a cheap one where there is a choice. The same seed gives the same array.
"""

import itertools
import random

CANDIDATES = 12  # combinations drawn for each one that is kept


class Rule:
    """What cannot be: `holds` gets values of the parameters that its arguments name."""

    def __init__(self, reason, forbids):
        self.reason = reason
        self.forbids = forbids
        self.names = forbids.__code__.co_varnames[:forbids.__code__.co_argcount]


class Array:
    def __init__(self, parameters, rules, costly, strength, seed):
        self.parameters = parameters
        self.costly = costly
        self.strength = strength
        self.random = random.Random(seed)
        self.rules_of = {name: [rule for rule in rules if name in rule.names] for name in parameters}
        self.possible, self.impossible = set(), set()
        for names in itertools.combinations(parameters, strength):
            for values in itertools.product(*(parameters[name] for name in names)):
                group = tuple(zip(names, values))
                (self.possible if self.complete(dict(group)) else self.impossible).add(group)
        self.rows = list(self.cover())

    def allowed(self, chosen, names):
        """No rule about one of these names forbids what has been chosen so far."""
        return not any(rule.forbids(*(chosen[name] for name in rule.names))
                       for changed in names for rule in self.rules_of[changed]
                       if all(name in chosen for name in rule.names))

    def complete(self, chosen):
        """The choice with every other parameter added somehow, or None."""
        if not self.allowed(chosen, chosen):
            return None
        missing = next((name for name in self.parameters if name not in chosen), None)
        if missing is None:
            return chosen
        for value in self.parameters[missing]:
            found = self.complete({**chosen, missing: value})
            if found:
                return found
        return None

    def groups(self, row, name):
        """The groups that a parameter is in, with those that were chosen before it."""
        order = list(self.parameters)
        for others in itertools.combinations((other for other in row if other != name), self.strength - 1):
            yield tuple((n, row[n]) for n in sorted((*others, name), key=order.index))

    def draw(self, group, missing):
        """A combination with this group in it, and how many missing ones it adds."""
        row = dict(group)
        added = 1
        order = [name for name in self.parameters if name not in row]
        self.random.shuffle(order)
        for name in order:
            ranked = []
            for value in self.parameters[name]:
                tried = {**row, name: value}
                if self.allowed(tried, (name,)):
                    gain = sum(found in missing for found in self.groups(tried, name))
                    ranked.append((-gain, value in self.costly, self.random.random(), value))
            for gain, *_, value in sorted(ranked):
                if self.complete({**row, name: value}):
                    row[name] = value
                    added -= gain
                    break
        return added, {name: row[name] for name in self.parameters}

    def cover(self):
        missing = set(self.possible)
        while missing:
            ordered = sorted(missing, key=repr)
            drawn = [self.draw(self.random.choice(ordered), missing) for _ in range(CANDIDATES)]
            row = max(drawn, key=lambda candidate: candidate[0])[1]
            missing.difference_update(itertools.combinations(row.items(), self.strength))
            yield row
