#!/usr/bin/env python3
"""Writes the dashboards: `deploy/grafana/make.py [FOLDER]`. Change this and not the JSON; a test compares them.

A panel says in its description what is normal. Thresholds are those of the alerts (`../prometheus/rules`).
"""

import json
import sys
from pathlib import Path

from panels import CHOSEN, RED, YELLOW, dashboard, low, quantiles, rate, series, stat, thresholds, total

GIB = 1024**3
PLATFORMS = ["drogue", "losant", "thingsboard", "watson"]


def overview():
    now = [
        stat("Nodes ready", "Nodes that serve clients, of those that are scraped. Fewer than all: see the runbook.",
             'job:moorline_nodes_ready:sum{job="$job"} / job:moorline_nodes:count{job="$job"}', "percentunit", low((YELLOW, 0.5), ("green", 1))),
        stat("Nodes that may be lost", "How many more nodes may die before a shard stops accepting. Three nodes that run: 1.",
             total("moorline_guarantee_survivable_nodes", how="min"), "none", low((YELLOW, 0), ("green", 1))),
        stat("Shards without a leader", "Shards of which no node knows a leader. Nothing is accepted there. Normal: 0.",
             f"count(max by (shard) (moorline_raft_leader{{{CHOSEN}}}) == 0) or vector(0)", "none", thresholds((RED, 1))),
        stat("Alerts", "Alerts that are firing now.", 'count(ALERTS{alertstate="firing", job="$job"}) or vector(0)', "none", thresholds((YELLOW, 1))),
        stat("Clients", "MQTT clients that are connected.", total("moorline_connections"), "none"),
        stat("PUBACK, p99", "How long one publish in a hundred waits at least for its acknowledgement.",
             quantiles("moorline_publish_ack_seconds", of=(0.99,))[0][0], "s", thresholds((YELLOW, 0.1), (RED, 0.5))),
    ]
    messages = [
        series("Messages", "PUBLISH packets from clients and to clients. One message may go to many.",
               [(rate("moorline_messages_received_total"), "received"), (rate("moorline_messages_delivered_total"), "delivered")], "cps"),
        series("Acknowledgement of a publish", "From a QoS 1 or 2 PUBLISH to its PUBACK or PUBREC: the way to the leader and one sync on a majority.",
               quantiles("moorline_publish_ack_seconds", of=(0.5, 0.9, 0.99)), "s", thresholds((RED, 0.5))),
        series("Copies dropped", "By layer and reason. Each is a subscriber who misses a message. Normal: none.",
               [(rate("moorline_messages_dropped_total", "layer, reason"), "{{layer}}: {{reason}}")], "cps", thresholds((RED, 1))),
        series("Publishes that were not accepted", "Of QoS 1 and 2: refused, by reason, or without an answer. Normal: none.",
               [(rate("moorline_messages_refused_total", "reason"), "refused: {{reason}}"),
                (rate("moorline_messages_unanswered_total", "reason"), "unanswered: {{reason}}")], "cps", thresholds((RED, 1))),
        series("Accounts", "By how much counts differ that must be equal. Anything but 0 is a bug: see the runbook.",
               [(total("moorline_accounting_imbalance", "where"), "{{where}}")], "none", thresholds((RED, 1)), width=6),
        series("Publishes that wait", "Of QoS 1 and 2, for their acknowledgement.",
               [(total("moorline_publishes_waiting", "instance"), "{{instance}}")], width=6),
        series("What became of copies", "For durable sessions and shares: queued, settled, gone with their session, full queues, QoS 0.",
               [(rate("moorline_queue_messages_total", "what"), "{{what}}")], "cps"),
        series("In queues", "Messages that wait in the queues of durable sessions and shares, and wills that are due.",
               [(total("moorline_messages_queued"), "queued"), (total("moorline_share_lag_messages"), "of shares, with no member"),
                (total("moorline_wills_due"), "wills due")]),
        series("Expired, repeated, resent", "Copies that expired before they were sent; publishes that came twice; deliveries sent again.",
               [(rate("moorline_messages_expired_total"), "expired"), (rate("moorline_messages_repeated_total"), "repeated"),
                (rate("moorline_messages_resent_total"), "resent"), (rate("moorline_share_redeliveries_total"), "lent again")], "cps"),
        series("What the cluster did not take", "Commands that shards did not answer, by outcome. Normal: none.",
               [(rate("moorline_router_outcomes_total", "outcome", 'outcome!="answered"'), "{{outcome}}")], "cps", thresholds((RED, 1))),
    ]
    clients = [
        series("Clients", "MQTT clients that are connected, by protocol.", [(total("moorline_connections", "protocol"), "{{protocol}}")], stack=True),
        series("Connections opened and closed", "Sockets accepted, and why connections end.",
               [(rate("moorline_connections_opened_total"), "opened"), (rate("moorline_connections_closed_total", "reason"), "closed: {{reason}}")], "cps"),
        series("Who is not let in", "Attempts that were not accepted, by result.",
               [(rate("moorline_auth_attempts_total", "result", 'result!="accepted"'), "{{result}}")], "cps", thresholds((RED, 5))),
        series("Limits", "How often clients ran into a limit, by its setting.", [(rate("moorline_limits_reached_total", "limit"), "{{limit}}")], "cps"),
        series("Sessions", "Durable sessions, with a connection and without. `away` that only grows: clients with random ids.",
               [(total("moorline_sessions", "state"), "{{state}}")], stack=True),
        series("Beyond what tenants may", "Refusals by quota, and what topic rights refused.",
               [(rate("moorline_tenant_quota_refused_total", "quota"), "quota {{quota}}"), (rate("moorline_rights_refused_total", "what"), "right to {{what}}")], "cps"),
    ]
    nodes = [
        series("CPU", "Processors that each node keeps busy.", [(rate("process_cpu_seconds_total", "instance"), "{{instance}}")], "none", width=6),
        series("Memory", "Resident memory.", [(total("process_resident_memory_bytes", "instance"), "{{instance}}")], "bytes", width=6),
        series("Free space", "Where the data is. Below 1 GiB new messages are refused, below 256 MiB the node stops.",
               [(total("moorline_disk_free_bytes", "instance"), "{{instance}}")], "bytes", low((YELLOW, GIB), ("green", 4 * GIB)), width=6),
        series("Clocks set", "By how much wall clocks were set since their processes began. Log time does not follow; a large one was wrong before.",
               [(total("moorline_clock_set_seconds", "instance"), "{{instance}}")], "s", width=6),
        series("Files and sockets", "Share of the file descriptors that each node may open.",
               [(f"process_open_fds{{{CHOSEN}}} / process_max_fds{{{CHOSEN}}}", "{{instance}}")], "percentunit", thresholds((RED, 0.8)), width=6),
        series("Up", "Since when each node runs: a line that falls is a restart.",
               [(f"time() - process_start_time_seconds{{{CHOSEN}}}", "{{instance}}")], "s", width=6),
        series("Ready", "1 while a node serves clients.", [(total("moorline_ready", "instance"), "{{instance}}")], "none", width=6),
        series("Versions", "What runs. More than one line: an upgrade that is not through.", [(total("moorline_build_info", "version"), "{{version}}")], "none", width=6),
        series("Certificate", "How long the certificate shown to clients is valid.",
               [(f"(moorline_cert_expiry_timestamp_seconds{{{CHOSEN}}} > 0) - time()", "{{instance}}")], "s", low((YELLOW, 2 * 86400), ("green", 14 * 86400)), width=6),
    ]
    return dashboard("moorline-overview", "Moorline: overview", "Whether clients are served, and how well.",
                     [("Now", now), ("Messages", messages), ("Clients", clients), ("Nodes", nodes)])


def raft_storage():
    lag = f"moorline_raft_commit_index{{{CHOSEN}}} - moorline_raft_applied_index{{{CHOSEN}}}"
    behind = f'max by (shard) (moorline_raft_commit_index{{job="$job"}}) - on (shard) group_right () moorline_raft_commit_index{{{CHOSEN}}}'
    groups = [
        series("Leaders", "Id of each shard's leader, as the nodes see it; 0 is none. Shard 0 is the meta group.",
               [(total("moorline_raft_leader", "shard", how="max"), "shard {{shard}}")], "none"),
        series("Shards led", "How many shards each node says that it leads. Leaderships spread by themselves.",
               [(f"count_values by (job) (\"node\", max by (job, shard) (moorline_raft_leader{{{CHOSEN}}}))", "node {{node}}")], "none", stack=True),
        series("Changes of leaders", "New leaders in a quarter of an hour, by shard. A restart of a node costs some.",
               [(f"max by (shard) (increase(moorline_raft_leader_changes_total{{{CHOSEN}}}[15m]))", "shard {{shard}}")], "none", thresholds((RED, 5))),
        series("Terms", "Raft terms. They stand still while nothing happens.", [(total("moorline_raft_term", "shard", how="max"), "shard {{shard}}")], "none"),
        series("Not applied yet", "Committed entries that a node has not applied. Normal: about 0.",
               [(lag, "{{instance}} shard {{shard}}")], "none", thresholds((RED, 1000))),
        series("Replicas behind", "Entries that a replica has not heard to be committed, beside the one that has most. Scrapes at different moments make some.",
               [(behind, "{{instance}} shard {{shard}}")], "none"),
        series("Entries", "Entries applied, by shard, and commands in each.", [(rate("moorline_raft_entries_total", "shard"), "shard {{shard}}")], "cps", stack=True),
        series("Commands in an entry", "The more, the less a sync costs each.", quantiles("moorline_raft_commands_per_entry"), "none"),
        series("Leaderships moved", "Asked for because a process died; offered for balance or a clean stop.",
               [(rate("moorline_raft_takeovers_total"), "takeovers"), (rate("moorline_raft_transfers_total"), "transfers")], "cps"),
        series("Leases", "Renewals of the meta lease that failed. Without one a node accepts nothing.",
               [(rate("moorline_lease_failures_total", "instance"), "{{instance}}")], "cps"),
        series("Too busy", "Runs of commands that a leader refused since too many waited.", [(rate("moorline_raft_busy_total", "instance"), "{{instance}}")], "cps"),
        series("On their way", "Commands that wait for their answers at the node where they came in.",
               [(total("moorline_router_waiting_commands", "instance"), "{{instance}}")]),
    ]
    times = [
        series("Propose to answer", "At the leader: log, majority, apply.", quantiles("moorline_raft_propose_seconds", "instance", "{{instance}}"), "s"),
        series("Run of commands", "From the first command of a run to its answers, where it came in.", quantiles("moorline_router_run_seconds", "instance", "{{instance}}"), "s"),
        series("Append", "From appending entries to their being on this node's disk.", quantiles("moorline_raft_append_seconds", "instance", "{{instance}}"), "s"),
        series("Apply", "Applying the entries that were ready.", quantiles("moorline_raft_apply_seconds", "instance", "{{instance}}"), "s"),
        series("Failed runs", "Runs of commands that were sent again, by why.", [(rate("moorline_router_failures_total", "reason"), "{{reason}}")], "cps"),
        series("Calls between nodes", "From a request to a peer to its answer.", quantiles("moorline_wire_call_seconds", "lane", "{{lane}}"), "s"),
    ]
    disk = [
        series("Sync of the log", "One group commit: its write and its sync. This bounds how fast a publish is acknowledged.",
               quantiles("moorline_wal_fsync_seconds", "instance", "{{instance}}"), "s", thresholds((RED, 0.1))),
        series("Log written", "Bytes written to the log.", [(rate("moorline_wal_bytes_total", "instance"), "{{instance}}")], "Bps"),
        series("Waiting for the log", "Bytes that wait for the log writer.",
               [(total("moorline_wal_queued_bytes", "instance"), "{{instance}}")], "bytes", thresholds((RED, 32 * 1024**2))),
        series("Operations in a commit", "Of all groups together.", quantiles("moorline_wal_commit_operations", "instance", "{{instance}}"), "none"),
        series("Checkpoints", "Writing out the rows of all groups.", quantiles("moorline_raft_checkpoint_seconds", "instance", "{{instance}}"), "s"),
        series("Rows in memory", "Since the last checkpoint, which begins at 64 MiB. At four times as much writers wait.",
               [(total("moorline_raft_overlay_bytes", "instance"), "{{instance}}")], "bytes", thresholds((RED, 256 * 1024**2))),
        series("Rows written", "By checkpoints, and what became durable.",
               [(rate("moorline_raft_checkpoint_bytes_total"), "by checkpoints"), (rate("moorline_state_written_bytes_total"), "to the database")], "Bps"),
        series("Flush of rows", "Making written rows durable.", quantiles("moorline_state_flush_seconds", "instance", "{{instance}}"), "s"),
        series("Not on disk as rows", "Applied entries that only the log has: what a start has to apply again.",
               [(f"moorline_raft_applied_index{{{CHOSEN}}} - moorline_raft_durable_index{{{CHOSEN}}}", "{{instance}} shard {{shard}}")], "none"),
        series("Databases", "What takes space and memory.", [(total("moorline_storage_bytes", "database, kind"), "{{database}}: {{kind}}")], "bytes"),
        series("Log in memory", "Entries held for replicas that lag a little.", [(total("moorline_raft_ring_bytes", "instance"), "{{instance}}")], "bytes"),
        series("Free space", "And what is left in a day if it goes on as in the last six hours.",
               [(total("moorline_disk_free_bytes", "instance"), "{{instance}}"),
                (f"predict_linear(moorline_disk_free_bytes{{{CHOSEN}}}[6h], 86400)", "{{instance}} in a day")], "bytes", low((YELLOW, GIB), ("green", 4 * GIB))),
    ]
    wire = [
        series("Peers", "Peers with all three connections. Less than the other nodes: somebody is not reached.",
               [(total("moorline_wire_peers_up", "instance"), "{{instance}}")], "none"),
        series("Bytes", "Between nodes, by lane: `control` for votes and leases, `data` for entries, `bulk` for snapshots.",
               [(rate("moorline_wire_bytes_total", "direction, lane"), "{{direction}} {{lane}}")], "Bps"),
        series("Waiting for peers", "Bytes that wait for a peer.", [(total("moorline_wire_queued_bytes", "instance, lane"), "{{instance}} {{lane}}")], "bytes"),
        series("Not sent", "Messages that were not sent, and why: `full` is a queue, `unreachable` a peer.",
               [(rate("moorline_wire_unsent_total", "lane, reason"), "{{lane}}: {{reason}}")], "cps", thresholds((RED, 1))),
        series("Connections made and lost", "Between nodes.",
               [(rate("moorline_wire_connects_total"), "made"), (rate("moorline_wire_failed_connects_total"), "failed"), (rate("moorline_wire_losses_total"), "lost")], "cps"),
        series("Refused", "Nodes that others refuse, and why; frames that could not be read.",
               [(rate("moorline_wire_refused_hellos_total", "reason"), "{{reason}}"), (rate("moorline_wire_malformed_frames_total"), "malformed frames"),
                (rate("moorline_wire_turned_away_total"), "too many connections")], "cps"),
    ]
    return dashboard("moorline-raft-storage", "Moorline: Raft and storage", "Why an acknowledgement takes as long as it does, and what the disks do.",
                     [("Groups", groups), ("Where the time goes", times), ("Disk", disk), ("Wire between nodes", wire)])


def protocols():
    mqtt = [
        series("Received", "PUBLISH packets from clients, by protocol and QoS.",
               [(rate("moorline_messages_received_total", "protocol, qos"), "{{protocol}} QoS {{qos}}")], "cps", stack=True),
        series("Delivered", "PUBLISH packets to clients, by protocol and QoS.",
               [(rate("moorline_messages_delivered_total", "protocol, qos"), "{{protocol}} QoS {{qos}}")], "cps", stack=True),
        series("Acknowledged by clients", "Deliveries acknowledged, and acknowledgements of nothing.",
               [(rate("moorline_deliveries_acked_total"), "acknowledged"), (rate("moorline_unknown_acks_total"), "of nothing")], "cps"),
        series("Packets", "Of every kind.", [(rate("moorline_mqtt_packets_received_total"), "received"), (rate("moorline_mqtt_packets_sent_total"), "sent")], "cps"),
        series("Bytes", "Read from clients and written to them.",
               [(rate("moorline_mqtt_received_bytes_total"), "received"), (rate("moorline_mqtt_sent_bytes_total"), "sent")], "Bps"),
        series("Subscriptions", "Filters of SUBSCRIBE packets, by result; subscriptions there are.",
               [(rate("moorline_subscribe_filters_total", "result"), "{{result}}/s"), (total("moorline_subscriptions"), "durable"), (total("moorline_live_subscriptions"), "clean")]),
    ]
    carriers = [
        series("TLS handshake", "From an accepted socket to its end.", quantiles("moorline_tls_handshake_seconds"), "s", width=6),
        series("TLS handshakes", "That succeeded, by kind.", [(rate("moorline_tls_handshakes_total", "kind"), "{{kind}}")], "cps", width=6),
        series("TLS handshakes that failed", "`refused`: no trust or nothing in common.",
               [(rate("moorline_tls_handshakes_failed_total", "reason"), "{{reason}}")], "cps", thresholds((RED, 1)), width=6),
        series("WebSocket refused", "Handshakes refused and rules broken.",
               [(rate("moorline_websocket_handshakes_refused_total", "reason"), "handshake: {{reason}}"),
                (rate("moorline_websocket_violations_total", "reason"), "frame: {{reason}}")], "cps", width=6),
        series("API", "Answers of the admin API by class, who was refused, connections turned away.",
               [(rate("moorline_admin_answers_total", "class"), "{{class}}"), (rate("moorline_api_unauthorised_total", "status"), "{{status}}"),
                (rate("moorline_api_refused_total", "reason"), "connection: {{reason}}")], "cps", width=6),
        series("Sockets that say nothing yet", "Connections that have not brought an accepted CONNECT, and clients that wait for their turn.",
               [(total("moorline_connections_opening"), "opening"), (rate("moorline_connects_delayed_total"), "delayed/s")], width=6),
        series("Passwords", "Chosen passwords that are checked; `busy` were turned away.",
               [(rate("moorline_password_checks_total", "result"), "{{result}}/s"), (total("moorline_password_checks_waiting"), "waiting")], width=6),
        series("Asking outside", "Answers of endpoints, and requests without one.",
               [(rate("moorline_outward_answers_total", "status"), "{{status}}"), (rate("moorline_outward_failed_total", "reason"), "failed: {{reason}}"),
                (rate("moorline_outward_refused_total", "reason"), "refused: {{reason}}")], "cps", width=6),
        series("Endpoints' answers", "From a request to its answer.", quantiles("moorline_outward_seconds"), "s", width=6),
    ]

    def auth(platform, by="result"):
        return series(f"{platform.capitalize()}: who comes", "Clients that said who they are, by what came of it.",
                      [(rate(f"moorline_{platform}_auth_attempts_total", by), "{{" + "}} {{".join(by.split(", ")) + "}}")], "cps")

    fostrom = [
        series("Fostrom: devices", "Connected, by protocol.", [(total("moorline_fostrom_connections", "protocol"), "{{protocol}}")], stack=True),
        auth("fostrom", "protocol, result"),
        series("Fostrom: what devices ask for", "By op and result.", [(rate("moorline_fostrom_ops_total", "op, result"), "{{op}}: {{result}}")], "cps"),
        series("Fostrom: not taken", "Packets that do not match their schema, and why Moonlight connections end.",
               [(rate("moorline_fostrom_packets_mismatched_total"), "mismatched"), (rate("moorline_fostrom_closed_total", "reason"), "closed: {{reason}}")], "cps"),
    ]
    watson = [
        series("Watson: clients", "Connected, by class.", [(total("moorline_watson_connections", "class"), "{{class}}")], stack=True),
        auth("watson", "class, result"),
        series("Watson: HTTP messaging", "Requests by kind and status.", [(rate("moorline_watson_http_requests_total", "what, status"), "{{what}} {{status}}")], "cps"),
        series("Watson: management API", "Requests by status.", [(rate("moorline_watson_rest_requests_total", "status"), "{{status}}")], "cps"),
        series("Watson: what managed devices say", "By kind.", [(rate("moorline_watson_management_total", "what"), "{{what}}")], "cps"),
        series("Watson: dropped and forbidden", "Messages that went nowhere, and what a class does not have.",
               [(rate("moorline_watson_dropped_total", "why"), "{{why}}"), (rate("moorline_watson_violations_total", "class, what"), "{{class}} {{what}}")], "cps"),
    ]
    thingsboard = [
        series("ThingsBoard: connections", "Devices by MQTT, integrators by WebSocket.",
               [(total("moorline_thingsboard_connections"), "devices"), (total("moorline_thingsboard_websockets"), "WebSockets")]),
        series("ThingsBoard: what devices publish", "By kind and result.", [(rate("moorline_thingsboard_requests_total", "what, result"), "{{what}}: {{result}}")], "cps"),
        series("ThingsBoard: HTTP and REST", "Requests by status.", [(rate("moorline_thingsboard_http_requests_total", "status"), "{{status}}")], "cps"),
        series("ThingsBoard: limited", "What rate limits of tenants refused.", [(rate("moorline_thingsboard_limited_total", "limit, what"), "{{limit}}: {{what}}")], "cps"),
        series("ThingsBoard: provisioning", "Requests for credentials, by result.", [(rate("moorline_thingsboard_provisions_total", "result"), "{{result}}")], "cps"),
    ]
    losant = [
        series("Losant: connections", "Devices by MQTT, and open streams.",
               [(total("moorline_losant_connections"), "devices"), (total("moorline_losant_streams"), "streams")]),
        auth("losant"),
        series("Losant: states", "By what became of them.", [(rate("moorline_losant_states_total", "result"), "{{result}}")], "cps"),
        series("Losant: commands", "`live` to whoever is there, `kept` in a mailbox.", [(rate("moorline_losant_commands_total", "how"), "{{how}}")], "cps"),
        series("Losant: REST", "Requests by status.", [(rate("moorline_losant_rest_requests_total", "status"), "{{status}}")], "cps"),
        series("Losant: ended", "Connections ended for what their device said.", [(rate("moorline_losant_ended_total", "why"), "{{why}}")], "cps"),
    ]
    drogue = [
        series("Drogue: clients", "Connected, by class.", [(total("moorline_drogue_connections", "class"), "{{class}}")], stack=True),
        auth("drogue", "protocol, result"),
        series("Drogue: events", "By protocol and result.", [(rate("moorline_drogue_events_total", "protocol, result"), "{{protocol}}: {{result}}")], "cps"),
        series("Drogue: commands", "By protocol and result.", [(rate("moorline_drogue_commands_total", "protocol, result"), "{{protocol}}: {{result}}")], "cps"),
        series("Drogue: HTTP", "Requests by kind and status.", [(rate("moorline_drogue_http_requests_total", "what, status"), "{{what}} {{status}}")], "cps"),
        series("Drogue: WebSockets closed", "Of applications, by reason.", [(rate("moorline_drogue_sockets_closed_total", "reason"), "{{reason}}")], "cps"),
    ]
    return dashboard("moorline-protocols", "Moorline: protocols", "What each protocol and platform brings, and what it is refused.",
                     [("MQTT", mqtt), ("Below it, and HTTP", carriers), ("Fostrom", fostrom), ("Watson", watson), ("ThingsBoard", thingsboard),
                      ("Losant", losant), ("Drogue", drogue)])


def mailbox():
    now = [
        stat("Mail that waits", "In all mailboxes.", total("moorline_mails_waiting"), "none"),
        stat("Mailboxes", "That have mail in them.", total("moorline_mailboxes"), "none"),
        stat("Dead mail", "Requeued too often. Each is something that a device could not do.", total("moorline_mails_dead"), "none", thresholds((YELLOW, 1))),
        stat("Devices connected", "Of those that are registered.", total("moorline_presence_devices", labels='state="connected"'), "none"),
        stat("Devices", "Registered, API tokens included.", total("moorline_devices"), "none"),
        stat("Calls open", "That wait for their device, or for its answer.", total("moorline_calls_open"), "none"),
    ]
    rejected = [(rate(f"moorline_{platform}_mail_total", "result"), f"{platform} {{{{result}}}}") for platform in PLATFORMS]
    mail = [
        series("Mail that waits", "Growing: devices are away, or do not settle what they are given.",
               [(total("moorline_mails_waiting"), "mails"), (total("moorline_mailboxes"), "mailboxes"), (total("moorline_mails_dead"), "dead")]),
        series("What happens to mail", "Where it was, and what happened to it there.",
               [(rate("moorline_mail_transitions_total", "from, to"), "{{from}}: {{to}}")], "cps"),
        series("How long mail waits", "From its coming to its device's being done with it.", quantiles("moorline_mail_time_in_queue_seconds"), "s"),
        series("Bytes of it", "Names and payloads.", [(total("moorline_mails_waiting_bytes"), "bytes")], "bytes"),
        series("Mail brought to devices", "By platform. `rejected` has no form in the device's words, and is gone.", rejected, "cps"),
        series("Fostrom's mailbox ops", "What devices do with their mail themselves.",
               [(rate("moorline_fostrom_ops_total", "op, result"), "{{op}}: {{result}}"), (rate("moorline_fostrom_drain_pauses_total"), "drains begun anew")], "cps"),
        series("Calls", "That wait, and that have ended and are kept.", [(total("moorline_calls_open"), "open"), (total("moorline_calls_kept"), "kept"),
                                                                         (total("moorline_own_calls_waiting"), "of devices, waiting here")]),
        series("Calls that ended", "By how they stand since.",
               [(rate("moorline_calls_ended_total", "state"), "{{state}}"), (rate("moorline_own_calls_refused_total"), "of devices, refused")], "cps"),
    ]
    devices = [
        series("Presence", "Devices by how they stand.", [(total("moorline_presence_devices", "state"), "{{state}}")], stack=True),
        series("Reports of presence", "Taken by shards; devices of which nothing was noted; news that did not get through.",
               [(rate("moorline_presence_reports_total"), "reports"), (rate("moorline_presence_dropped_total"), "dropped"),
                (rate("moorline_device_news_lost_total"), "news lost")], "cps"),
        series("Registry", "Tenants, devices and how they are found.",
               [(total("moorline_tenants", how="max"), "tenants"), (total("moorline_devices"), "devices"), (total("moorline_credential_lookups"), "lookups")]),
    ]
    events = [
        series("Events appended", "To the streams of tenants, and points of telemetry recorded.",
               [(rate("moorline_events_appended_total"), "events"), (rate("moorline_points_recorded_total"), "points"),
                (rate("moorline_shared_attributes_changed_total"), "shared attributes")], "cps"),
        series("Furthest behind", "Events of one shard that the slowest consumer group has not committed.",
               [(total("moorline_event_consumer_lag_max", how="max"), "events")], "none", thresholds((RED, 100_000))),
        series("Readers", "Streams served, and those refused since there are as many as there may be.",
               [(total("moorline_event_readers"), "readers"), (total("moorline_event_consumers"), "consumer groups, by shard"),
                (rate("moorline_event_readers_refused_total"), "refused/s")]),
        series("Kept", "Events and histories on disk, as rows.",
               [(total("moorline_events_bytes"), "events"), (total("moorline_histories_bytes"), "histories"), (total("moorline_retained_bytes"), "retained messages"),
                (total("moorline_documents_bytes"), "documents"), (total("moorline_devices_bytes"), "devices"), (total("moorline_calls_bytes"), "calls")], "bytes", stack=True),
        series("Shares", "Messages that no member has: of all shares, and of the longest queue.",
               [(total("moorline_share_lag_messages"), "all"), (total("moorline_share_lag_max_messages", how="max"), "longest"), (total("moorline_share_members"), "members")],
               "none", thresholds((RED, 10_000))),
        series("Retained and wills", "Retained messages, wills that are kept, due and published.",
               [(total("moorline_retained_messages"), "retained"), (total("moorline_wills"), "wills"), (total("moorline_wills_due"), "due"),
                (rate("moorline_wills_published_total"), "published/s")]),
    ]
    return dashboard("moorline-mailbox", "Moorline: mailbox and streams", "What goes down to devices, and what comes up from them.",
                     [("Now", now), ("Mail and calls", mail), ("Devices", devices), ("Events, shares and what is kept", events)])


DASHBOARDS = {"overview": overview, "raft-storage": raft_storage, "protocols": protocols, "mailbox": mailbox}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "dashboards"
    for name, make in DASHBOARDS.items():
        (folder / f"{name}.json").write_text(json.dumps(make(), indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
