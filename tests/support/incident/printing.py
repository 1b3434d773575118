"""Records as `looker` and node's `bunyan` print them for people (LG 1.5)."""

import json

HEAD = {"msg", "v", "name", "level", "time", "hostname", "pid", "component"}
LOOKER = {60: "FATA", 50: "ERRO", 40: "WARN", 30: "INFO", 20: "DEBG"}
NODE = {60: "FATAL", 50: "ERROR", 40: " WARN", 30: " INFO", 20: "DEBUG"}


def each_record(lines, show):
    """`show` gives the lines of a record; what is none goes through."""
    out = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            out.append(line)
            continue
        out += show(record)
    return out


def milliseconds(record):
    return record["time"][:19] + "." + record["time"][20:23].rstrip("Z").ljust(3, "0") + "Z"


def looker(lines):
    """`looker -o long`."""

    def show(record):
        who = f"{record['name']}/{record['pid']} ({record.get('component', '')}) on {record['hostname']}"
        head = f"{milliseconds(record).replace('T', ' ')} {LOOKER[record['level']]} {who.replace(' ()', '')}: "
        keys = [f"    {key} = {record[key]}" for key in sorted(record.keys() - HEAD)]
        return [*(head + record["msg"].replace("\n", "\n    ")).split("\n"), *keys]

    return each_record(lines, show)


def node(lines, *, short=False):
    """`bunyan`, `bunyan -o short`: short values in brackets, long ones below, a message of several lines as well."""

    def show(record):
        name = "/".join(str(record[key]) for key in ("name", "component") if record.get(key))
        behind, below = [], []
        for key in (key for key in record if key not in HEAD):
            value = record[key] if isinstance(record[key], str) else json.dumps(record[key])
            if "\n" in value or len(value) > 50:
                below.append(f"{key}: {value}")
            else:
                behind.append(f"{key}={json.dumps(value) if ' ' in value or not value else value}")
        msg = record["msg"]
        if "\n" in msg:
            below.insert(0, msg)
        text = ("" if "\n" in msg else f" {msg}") + (f" ({', '.join(behind)})" if behind else "")
        level = NODE[record["level"]]
        if short:
            head = f"{milliseconds(record)[11:]} {level} {name}:{text}"
        else:
            head = f"[{record['time']}] {level}: {name}/{record['pid']} on {record['hostname']}:{text}"
        values = "\n    --\n".join("\n".join(f"    {line}" for line in each.split("\n")) for each in below)
        return [head, *(values.split("\n") if values else [])]

    return each_record(lines, show)
