"""A session of the official Snowpipe Streaming SDK with the emulator: it is the referee, not we.

Usage: snowpipe_session.py URL PRIVATE_KEY_FILE CA_FILE ACCOUNT USER
Prints one line for each fact and exits with 0 when all hold.
"""

import json
import os
import ssl
import sys
import time
import urllib.request

url, key_file, ca_file, account, user = sys.argv[1:]
os.environ["SSL_CERT_FILE"] = ca_file

from snowflake.ingest.streaming import StreamingIngestClient, StreamingIngestError  # noqa: E402


def faults(*list_of_faults):
    request = urllib.request.Request(
        f"{url}/_emulator/faults",
        data=json.dumps(list_of_faults).encode(),
        headers={"Content-Type": "application/json"},
    )
    urllib.request.urlopen(request, context=ssl.create_default_context(cafile=ca_file)).read()


def client(name):
    properties = {
        "url": url,
        "account": account,
        "user": user,
        "private_key": open(key_file).read(),
        "enable_telemetry_reporting": "false",
    }
    return StreamingIngestClient(
        name, db_name="SDK", schema_name="PUBLIC", pipe_name="T-STREAMING", properties=properties
    )


def rows(channel, start, end):
    for number in range(start, end):
        channel.append_row({"ID": number, "TEXT": f"row {number}"}, offset_token=str(number))


def committed(channel, token, seconds=30):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if channel.get_latest_committed_offset_token() == token:
            return
        time.sleep(0.1)
    raise AssertionError(f"token {token} not committed: {channel.get_latest_committed_offset_token()}")


def fact(text):
    print(f"ok: {text}", flush=True)


first = client("first")
channel, status = first.open_channel("C1")
assert status.status_code == "SUCCESS", status
assert status.latest_committed_offset_token is None, status
fact("opens a new channel")

rows(channel, 0, 100)
committed(channel, "99")
fact("appends, flushes and commits 100 rows")

channel.append_rows([{"ID": 100}, {"ID": 101}], start_offset_token="100", end_offset_token="101")
channel.initiate_flush()
committed(channel, "101")
fact("appends a list of rows")

statuses = first.get_channel_statuses(["C1"])
assert statuses["C1"].rows_inserted_count == 102, statuses["C1"]
fact("asks for the status; counters are cumulative")

token = 101
for answer in ["503", "429", "401", "500", "html_404", "lost"]:
    faults({"on": "append", "answer": answer, "count": 1})
    rows(channel, token + 1, token + 11)
    token += 10
    committed(channel, str(token))
    fact(f"an append that is answered with {answer} is repeated, unseen by the application")
assert first.get_channel_statuses(["C1"])["C1"].rows_inserted_count == 162
fact("no row was doubled")

faults({"on": "status", "answer": "503", "count": 2})
time.sleep(1.5)
assert channel.get_channel_status().status_code == "SUCCESS"
fact("a status call that fails is repeated")


def invalid(channel, start):
    deadline = time.time() + 30
    while time.time() < deadline:
        try:
            rows(channel, start, start + 1)
            channel.initiate_flush()
            time.sleep(0.3)
        except StreamingIngestError as error:
            return error
    raise AssertionError("the channel stays usable")


for answer in ["stale", "409"]:
    faults({"on": "append", "answer": answer, "count": 1})
    invalid(channel, token + 1)
    faults()
    channel.close(wait_for_flush=False)
    channel, status = first.open_channel("C1")
    assert status.latest_committed_offset_token == str(token), status
    fact(f"an append that is answered with {answer} invalidates the channel; reopened, it knows its token")

second = client("second")
rival, status = second.open_channel("C1")
assert status.latest_committed_offset_token == str(token), status
invalid(channel, token + 1)
fact("a reopen by another client fences the first")
rows(rival, token + 1, token + 6)
token += 5
committed(rival, str(token))
fact("the other client goes on")

rival.close()
second.drop_channel("C1")
again, status = second.open_channel("C1")
assert status.latest_committed_offset_token is None, status
fact("a dropped channel forgets its token")
again.close()
first.close()
second.close()
print("session complete", flush=True)
