"""
What fuzzing found, as small as it could be made, by the target of tests/fuzz; and one input for each idea it is fed.

A failure is put here before it is fixed.
"""

from tests.vectors.delete_media_complete import SUCCESS

KEY = b"1234343b689jsi3ka5422dfe1e470000"
VALID = SUCCESS.replace(b"****", b"0000")
# EventTime and MediaId written with escapes, and again in plain text where they mean nothing.
ESCAPED = VALID.replace(b'17Z"', b'17\\u005a"')[:-1] + b',"ErrorMessage":"2017-03-20T07:49:17Z"}'
DISGUISED = VALID.replace(b'470000"', b'4\\u00370000"')[:-1] + b',"ErrorMessage":"%s"}' % KEY

CASES: dict[str, list[tuple[object, ...]]] = {
    "reader": [
        ([(KEY, VALID), (KEY, VALID.replace(b"07:49:17", b"07:49:61"))], 0),
        ([(KEY, ESCAPED), (KEY, ESCAPED.replace(b'17Z"', b'18Z"'))], 1),
        ([(KEY, DISGUISED), (b"a" * 32, DISGUISED.replace(KEY, b"a" * 32))], 2),
        ([(b"", b""), (None, b"\xff")], 3),
    ],
    "validate": [(b"NaN", 0), (b'{"EventType":"\\u0000"}', 1), (VALID[:-1] + b',"x":-1e400}', 2)],
    "signature": [
        (b"\xff", b"1519375990", 300),
        (None, "\u0663\u0663\u0663\u0663\u0663".encode(), 300),
        (b"", b"+519375990", 300),
    ],
    "mns body": [("",), ("{",), ("ey==",), ("\x00",), (" \n{",)],
    "mns answer": [
        (200, b"<Message><MessageId>1</MessageId><ReceiptHandle>&#x110000;</ReceiptHandle></Message>"),
        (
            200,
            b"<Message><MessageId>1</MessageId><ReceiptHandle>r</ReceiptHandle><EnqueueTime>\xc2\xb2</EnqueueTime></Message>",
        ),
        (
            200,
            b"<Message><MessageId>1</MessageId><ReceiptHandle>r</ReceiptHandle><EnqueueTime>%s</EnqueueTime></Message>"
            % (b"9" * 5000),
        ),
        (200, b"\xff\xfe<\x00a\x00>\x00\x00\xd8<\x00/\x00a\x00>\x00"),
        (404, b"<!DOCTYPE a><Error/>"),
    ],
}
