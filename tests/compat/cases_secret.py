"""Cases of --object secret: encrypted with another secret, encoded, from files, and wrong."""

import base64
import subprocess

from cases import accept, cases

KEY = bytes(range(32))
IV = bytes(range(100, 116))
KEY_TEXT = base64.b64encode(KEY).decode()
IV_TEXT = base64.b64encode(IV).decode()
MASTER = f"--object secret,id=m,format=base64,data={KEY_TEXT}"
EVERYWHERE = ("stdout", "stderr", "status")
EMPTY = accept("QEMU looks for the padding of nothing and finds some", *EVERYWHERE)
MALFORMED = accept("QEMU takes what it can of malformed base64", *EVERYWHERE)
ITSELF = accept("a secret is known by its id once it is made, not while it is being made")


def encrypted(text):
    command = ["openssl", "enc", "-aes-256-cbc", "-K", KEY.hex(), "-iv", IV.hex()]
    return base64.b64encode(subprocess.run(command, input=text, stdout=subprocess.PIPE, check=True).stdout).decode()


def secret(properties, first=MASTER):
    return f"info {first} --object secret,id=s,{properties} raw.img"


PASSPHRASE = encrypted(b"a passphrase")

cases("object/secret",
      *[secret(f"keyid=m,iv={IV_TEXT},format=base64,data={encrypted(bytes(length))}") for length in (0, 1, 15, 16, 17, 1000)],
      secret(f"keyid=m,format=base64,data={PASSPHRASE}"), secret(f"keyid=m,iv={IV_TEXT},data=x"), secret(f"keyid=m,iv={IV_TEXT},format=raw,data={PASSPHRASE}"),
      secret(f"keyid=m,iv=,format=base64,data={PASSPHRASE}"), secret(f"keyid=m,iv=AAAA,format=base64,data={PASSPHRASE}"),
      secret(f"keyid=m,iv=!!,format=base64,data={PASSPHRASE}"), secret(f"keyid=m,iv={KEY_TEXT},format=base64,data={PASSPHRASE}"),
      secret(f"keyid=m,iv={IV_TEXT},format=base64,data=AAAA"), secret(f"keyid=m,iv={IV_TEXT},format=base64,data=!!"),
      secret(f"keyid=m,iv={IV_TEXT},format=base64,data={KEY_TEXT}"), (secret(f"keyid=m,iv={IV_TEXT},format=base64,data="), EMPTY),
      secret(f"keyid=,iv={IV_TEXT},format=base64,data={PASSPHRASE}"), secret(f"keyid=x,iv={IV_TEXT},format=base64,data={PASSPHRASE}"),
      (secret(f"keyid=s,iv={IV_TEXT},format=base64,data={PASSPHRASE}"), ITSELF), secret(f"keyid=m,iv={IV_TEXT},format=base64,data={PASSPHRASE}", first=""),
      secret(f"keyid=m,iv={IV_TEXT},format=base64,data={PASSPHRASE}", first="--object secret,id=m,data=short"),
      secret(f"keyid=m,iv={IV_TEXT},format=base64,data={PASSPHRASE}", first="--object throttle-group,id=m"),
      secret(f"iv={IV_TEXT},format=base64,data={PASSPHRASE}"), secret("format=base64,data=AAAA"), (secret("format=base64,data=a=b="), MALFORMED), secret("format=frob,data=x"),
      secret("file=raw.img", first=""), secret("file=nowhere"), secret("file=raw.img,data=x"), secret("data=x,data=y"), secret("data=a,,b"),
      secret(f"keyid=m,iv={IV_TEXT},file=raw.img"), secret(f"keyid=m,iv={IV_TEXT},format=base64,file=raw.img"),
      )
