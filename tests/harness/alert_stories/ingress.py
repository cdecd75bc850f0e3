"""Callbacks that do not come, are refused, or wait in the spool."""

from __future__ import annotations

from tests.harness.alert_stories.healthy import (
    BRIDGE,
    BURSTS,
    DENIALS,
    DENIED,
    LEFT_BEHIND,
    NOT_FOUND,
    OVERLOADED,
    PUBLISHED,
    RELOAD,
    SPOOL,
    SPOOL_BYTES,
    Story,
    fires,
    mns_messages,
    spool_failures,
)

DAY = 24 * 4  # In quarters of an hour.
INGRESS = [
    Story(
        "a day of callbacks, then an hour without",
        (DAY + 9) * 15,
        {PUBLISHED: "0+900x100 90000x30"},
        fires("NoCallbacks", "0 callbacks came in the last half hour, which is rare here."),
        step_minutes=15,
    ),
    Story(
        "they came by MNS meanwhile",
        (DAY + 9) * 15,
        {PUBLISHED: "0+900x100 90000x30", mns_messages("received"): "0+1x200"},
        step_minutes=15,
    ),
    Story(
        "nights without callbacks are usual",
        (DAY + 24) * 15,
        {PUBLISHED: "0+900x31 27900x55 28800+900x23 49500x30"},
        step_minutes=15,
    ),
    Story("nothing is known of the day before", 120, {PUBLISHED: "0+600x6 3600x70"}, step_minutes=10),
    Story(
        "callbacks are refused",
        10,
        {OVERLOADED: "0x5 4x20"},
        fires("CallbacksRefused", "4 callbacks in 5 minutes were answered 503: overloaded.", outcome="overloaded"),
    ),
    Story("they were refused six minutes ago", 12, {OVERLOADED: "0x5 4x20"}),
    Story(
        "the first day: VOD signs with another key than we have",
        10,
        {PUBLISHED: "_x30", DENIED: "0x6 3x30", DENIALS: "0x6 3x30"},
        fires(
            "NoneTaken",
            "3 requests in 5 minutes were refused (denied), and none of a day was taken.",
            outcome="denied",
        ),
    ),
    Story("the first day, but some are taken", 10, {PUBLISHED: "0x4 1x30", DENIED: "0x4 3x30", DENIALS: "0x4 3x30"}),
    Story("the first day: a stranger looks for another page", 10, {PUBLISHED: "_x30", NOT_FOUND: "0x4 1x30"}),
    Story(
        "VOD signs with a key we dropped",
        25,
        {DENIALS: "0+4x30", DENIED: "0+4x30"},
        fires(
            "SignaturesDenied",
            "40 callbacks in 10 minutes were answered 403: signature_wrong.",
            reason="signature_wrong",
        ),
    ),
    Story("3% are denied", 25, {DENIALS: "0+1.8x30", DENIED: "0+1.8x30"}),
    Story("some are denied, but they are few", 25, {DENIALS: "0+1x30", DENIED: "0+1x30", PUBLISHED: "0+0.1x30"}),
    Story(
        "a signature comes with very many bodies",
        8,
        {BURSTS: "0x5 1x20"},
        fires("SignatureBurst", "1 signatures in 10 minutes came with more bodies a second than they should."),
    ),
    Story("it did a quarter of an hour ago", 21, {BURSTS: "0x5 1x20"}),
    Story(
        "the settings had mistakes at the last SIGHUP",
        8,
        {RELOAD: "0x5 1x20"},
        fires("ReloadRefused", "bridge:8081 refused its settings at the last SIGHUP (1 of its processes).", **BRIDGE),
    ),
    Story("they were fixed at the next one", 8, {RELOAD: "0x5 1 0x20"}),
]

SPOOLING = [
    Story(
        "Kafka takes nothing and callbacks gather",
        16,
        {SPOOL: "0x5 100+60x20"},
        fires("SpoolGrowing", "700 callbacks wait at bridge:8081 for Kafka.", **BRIDGE),
    ),
    Story(
        "they wait, and no new ones come",
        20,
        {SPOOL: "0x5 7x20"},
        fires("SpoolGrowing", "7 callbacks wait at bridge:8081 for Kafka.", **BRIDGE),
    ),
    Story("they get fewer", 16, {SPOOL: "5000-100x30"}),
    Story("they have gathered for four minutes", 10, {SPOOL: "0x5 100+60x20"}),
    Story(
        "the spool is nearly full",
        10,
        {SPOOL_BYTES: "0x5 810000x10"},
        fires("SpoolNearlyFull", "The spool of bridge:8081 is 81% full.", **BRIDGE),
    ),
    Story("the spool is 80% full", 10, {SPOOL_BYTES: "0x5 800000x10"}),
    Story(
        "the disk fails",
        8,
        {spool_failures("disk"): "0x5 2x10"},
        fires(
            "SpoolFailing",
            "The spool of bridge:8081 refused 2 writes in 5 minutes: disk.",
            instance="bridge:8081",
            reason="disk",
        ),
    ),
    Story("it failed before, and no more", 12, {spool_failures("disk"): "0x5 2x10"}),
    Story(
        "a spool is left behind, and in use",
        12,
        {LEFT_BEHIND: "0x5 2x20"},
        fires("SpoolLeftBehind", "2 spools beside that of bridge:8081 cannot be emptied.", **BRIDGE),
    ),
    Story("it is free after a minute", 12, {LEFT_BEHIND: "0x5 2 0x20"}),
]
