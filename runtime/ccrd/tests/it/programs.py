"""Sends and reads as mail programs do, with what Python brings along. Prints one JSON line for each message.

programs.py send HOST PORT COUNT    one for each line of stdin; what the server has acknowledged: key, recipients, digest
programs.py read HOST PORT BOX...   what is in the boxes: box, key, digest, unique id
"""

import email.message
import email.policy
import hashlib
import json
import poplib
import smtplib
import sys
import time

DEADLINE = time.monotonic() + 120


def digest(message):
    return hashlib.sha256(message).hexdigest()


def attachment():
    """8 MB as a mail program attaches them."""
    message = email.message.EmailMessage(policy=email.policy.SMTP)
    message.set_content("see the attachment")
    content = bytes(range(256)) * (8_000_000 // 256)
    message.add_attachment(content, maintype="application", subtype="octet-stream", filename="a.bin")
    return message.as_bytes()


def bodies(largest):
    """Kinds of bodies, lines ended by CRLF as they arrive."""
    yield b"plain\r\n"
    yield "Gr\u00fc\u00dfe, \u65e5\u672c\r\n".encode() + bytes(range(128, 256)) + b"\r\n"
    yield b"x" * 80_000 + b"\r\n"
    yield b".\r\n..\r\n.\r\n\r\n.end\r\n"
    yield b"\r\n" * 50 + b"lone\rreturn\r\n"
    yield b"A" * 70 + b"\r\n" + (b"QUJD" * 19 + b"\r\n") * (largest // 80)


def message_of(n, key, largest):
    """The n-th message: two have an attachment of 8 MB, one is as long as the server takes."""
    head = f"Message-ID: <{key}>\r\nSubject: {n}\r\n".encode()
    if n in (8, 32):
        return head + attachment()
    kinds = list(bodies(largest - 2_000 if n == 23 else 200_000))
    return head + b"\r\n" + kinds[n % len(kinds)]


def send(host, port, count):
    largest = None
    for n in range(count):
        # Whoever reads the lines keeps the pace: a line for each message.
        sys.stdin.readline()
        key = f"program-{n}@test"
        to = [f"box{b}@lab" for b in range(150)] if n == 1 else [f"box{n % 5}@lab"]
        while True:
            try:
                with smtplib.SMTP(host, port, timeout=20) as smtp:
                    smtp.ehlo("client")
                    largest = largest or int(smtp.esmtp_features["size"])
                    message = message_of(n, key, largest)
                    refused = smtp.sendmail("bob@lab", to, message, mail_options=["BODY=8BITMIME"])
                    assert not refused, refused
                break
            except (OSError, smtplib.SMTPServerDisconnected) as e:
                # Not acknowledged: the same message again would be another one.
                key += "+"
                if time.monotonic() > DEADLINE:
                    raise e
                time.sleep(0.1)
        print(json.dumps({"key": key, "to": [t.split("@")[0] for t in to], "digest": digest(message)}), flush=True)


def read(host, port, boxes):
    for box in boxes:
        pop = poplib.POP3(host, port, timeout=20)
        pop.user(box)
        pop.pass_("any")
        unique = dict(line.decode().split(" ", 1) for line in pop.uidl()[1])
        for n in range(1, pop.stat()[0] + 1):
            message = b"".join(line + b"\r\n" for line in pop.retr(n)[1])
            key = message.split(b"Message-ID: <", 1)[1].split(b">", 1)[0].decode()
            found = {"box": box, "key": key, "digest": digest(message), "uid": unique[str(n)]}
            print(json.dumps(found), flush=True)
        pop.quit()


def main():
    verb, host, port, *rest = sys.argv[1:]
    # A long line is no attack here.
    poplib._MAXLINE = 1 << 20
    if verb == "send":
        send(host, int(port), int(rest[0]))
    else:
        read(host, int(port), rest)


main()
