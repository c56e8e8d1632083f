"""query-qmp-schema and query-commands of both daemons, compared by what they mean."""

import tempfile

import client

# What only the reference has, and why.
MISSING_COMMANDS = {
    "jobs": """block-commit block-stream block-job-cancel block-job-complete block-job-dismiss block-job-finalize
        block-job-pause block-job-resume block-job-set-speed blockdev-backup blockdev-create blockdev-mirror drive-backup
        drive-mirror job-cancel job-complete job-dismiss job-finalize job-pause job-resume x-blockdev-amend""",
}
# Of the machine's monitor, which has devices to measure: here it is nodes.
OWN_COMMANDS = {"block-latency-histogram-set"}
# Enums of which we have a part, by a value of each: drivers, objects and the like that we lack.
PARTLY = {"qcow2", "secret", "socket", "abort"}
# Members that we lack (no such feature) or that are new (of later versions of QEMU, or our own).
LACKED_MEMBERS = {"pr-manager", "aio-max-batch", "drop-cache", "x-check-cache-dropped", "take-child-perms",
                  "unshare-child-perms", "bottom"}
ADDED_MEMBERS = {"discard-no-unref", "handshake-max-seconds", "zone_append_bytes", "zone_append_operations", "zone_append_total_time_ns",
                 "zone_append_merged", "failed_zone_append_operations", "invalid_zone_append_operations",
                 "zone_append_latency_histogram"}
OWN_VALUES = {"memory"}


def ask(program, *commands):
    requests = [{"execute": "qmp_capabilities"}] + [{"execute": one} for one in commands] + [{"execute": "quit"}]
    with tempfile.TemporaryDirectory() as directory:
        replies, _, _ = client.talk_stdio(program, requests, directory)
    return [reply["return"] for reply in replies[2:-1]]


class Comparison:
    def __init__(self, ours, reference):
        self.ours = {entity["name"]: entity for entity in ours}
        self.theirs = {entity["name"]: entity for entity in reference}
        self.seen = set()
        self.problems = []

    def say(self, where, text):
        self.problems.append(f"{where}: {text}")

    def types(self, where, mine, theirs):
        if (mine, theirs) in self.seen:
            return
        self.seen.add((mine, theirs))
        a, b = self.ours[mine], self.theirs[theirs]
        if a["meta-type"] != b["meta-type"]:
            return self.say(where, f"is {a['meta-type']}, not {b['meta-type']}")
        if a.get("features") != b.get("features"):
            self.say(where, f"has features {a.get('features')}, not {b.get('features')}")
        compare = {"object": self.objects, "enum": self.enums, "array": self.arrays,
                   "alternate": self.alternates, "builtin": self.builtins}[a["meta-type"]]
        compare(where, a, b)

    def builtins(self, where, a, b):
        if a != b:
            self.say(where, f"is {a['name']}, not {b['name']}")

    def arrays(self, where, a, b):
        self.types(where + "[]", a["element-type"], b["element-type"])

    def enums(self, where, a, b):
        mine, theirs = set(a["values"]) - OWN_VALUES, set(b["values"])
        if not mine <= theirs or (mine != theirs and not mine & PARTLY):
            self.say(where, f"values {sorted(mine)}, not {sorted(theirs)}")

    def alternates(self, where, a, b):
        kinds = [{self.kind(table, one["type"]): one["type"] for one in entity["members"]}
                 for table, entity in ((self.ours, a), (self.theirs, b))]
        if set(kinds[0]) != set(kinds[1]):
            return self.say(where, f"kinds {set(kinds[0])}, not {set(kinds[1])}")
        for kind in kinds[0]:
            self.types(f"{where}/{kind}", kinds[0][kind], kinds[1][kind])

    @staticmethod
    def kind(table, name):
        return table[name].get("json-type", table[name]["meta-type"])

    def objects(self, where, a, b):
        mine = {member["name"]: member for member in a["members"]}
        theirs = {member["name"]: member for member in b["members"]}
        lacked, added = set(theirs) - set(mine) - LACKED_MEMBERS, set(mine) - set(theirs) - ADDED_MEMBERS
        if lacked or added:
            self.say(where, f"lacks {sorted(lacked)}, has {sorted(added)} besides")
        for name in set(mine) & set(theirs):
            there = f"{where}.{name}"
            if ("default" in mine[name]) != ("default" in theirs[name]):
                self.say(there, "is optional on one side only")
            if mine[name].get("features") != theirs[name].get("features"):
                self.say(there, "has other features")
            self.types(there, mine[name]["type"], theirs[name]["type"])
        if a.get("tag") != b.get("tag"):
            self.say(where, f"has tag {a.get('tag')}, not {b.get('tag')}")
        variants = {one["case"]: one["type"] for one in b.get("variants", ())}
        for one in a.get("variants", ()):
            if one["case"] not in OWN_VALUES:
                self.types(f"{where}({one['case']})", one["type"], variants[one["case"]])

    def run(self):
        expected = {name for names in MISSING_COMMANDS.values() for name in names.split()}
        commands = [{name for name, entity in table.items() if entity["meta-type"] == "command"}
                    for table in (self.ours, self.theirs)]
        if commands[1] - commands[0] != expected or commands[0] - commands[1] != OWN_COMMANDS:
            self.say("commands", f"{sorted((commands[1] - commands[0]) ^ expected)} {commands[0] - commands[1]}")
        for name, entity in self.ours.items():
            if entity["meta-type"] not in ("command", "event"):
                continue
            if name in OWN_COMMANDS:
                continue
            if name not in self.theirs:
                self.say(name, "is unknown to the reference")
                continue
            self.types(name, entity["arg-type"], self.theirs[name]["arg-type"])
            if "ret-type" in entity:
                self.types(name + " ->", entity["ret-type"], self.theirs[name]["ret-type"])
            if entity.get("features") != self.theirs[name].get("features"):
                self.say(name, "has other features")
        return self.problems


def compare(ours, reference):
    our_schema, our_commands = ask(ours, "query-qmp-schema", "query-commands")
    their_schema, = ask(reference, "query-qmp-schema")
    problems = Comparison(our_schema, their_schema).run()
    listed = {one["name"] for one in our_commands}
    described = {one["name"] for one in our_schema if one["meta-type"] == "command"}
    if listed != described:
        problems.append(f"query-commands and query-qmp-schema differ: {listed ^ described}")
    return problems
