"""The part of both tables that is about encryption: LUKS on its own and in qcow2, and the old AES."""

from cases import accept, cases
from cases_shell import programs

SECRET = "--object secret,id=s,data=abc"
OTHER = "--object secret,id=t,data=tuv"
WRONG = "--object secret,id=s,data=wrong"
LUKS = "driver=luks,key-secret=s,file.filename="
QCOW2 = "driver=qcow2,encrypt.key-secret=s,file.filename="
FAST = "key-secret=s,iter-time=10"
QCOW2_FAST = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"

LATER = accept("options of QEMU 10 that 7.2 does not have", "stdout")
NO_KEY_NEEDED = accept("ours checks without the key: metadata is not encrypted", "stdout", "stderr", "status")
NO_LOOK_UP = accept("ours measures without looking the secret up", "stdout", "stderr", "status")
OWN_ORDER = accept("the keys of a json: name have an order of our own", "stdout")
BESIDE = accept("7.2 finds no directory for a relative name where the image's own is json:; ours takes its file's", "stderr", "status", "files")
PLAIN = accept("7.2 stores what is compressed as it is, without encrypting it: ours refuses", "stdout", "stderr", "status", "files")

_CIPHERS = ["aes-128", "aes-192", "cast5-128", "serpent-256", "twofish-192", "des", "3des", "frob"]

cases("luks/create",
      f"create -f luks {SECRET} -o {FAST} x.luks 1M", f"create -f luks -q {SECRET} -o {FAST} x.luks 0",
      f"create -f luks {SECRET} -o {FAST} x.luks 513", f"create -f luks {SECRET} -o {FAST},size=1M x.luks",
      *[f"create -f luks {SECRET} -o {FAST},cipher-alg={name} x.luks 64k" for name in _CIPHERS],
      *[f"create -f luks {SECRET} -o {FAST},cipher-mode={name} x.luks 64k" for name in ("ecb", "cbc", "ctr", "xts", "frob")],
      *[f"create -f luks {SECRET} -o {FAST},ivgen-alg={name} x.luks 64k" for name in ("plain", "plain64", "essiv", "frob")],
      *[f"create -f luks {SECRET} -o {FAST},hash-alg={name} x.luks 64k"
        for name in ("md5", "sha512", "ripemd160", "frob")],
      f"create -f luks {SECRET} -o {FAST},ivgen-alg=essiv,ivgen-hash-alg=sha1 x.luks 64k",
      f"create -f luks {SECRET} -o {FAST},ivgen-alg=plain64,ivgen-hash-alg=sha1 x.luks 64k",
      f"create -f luks {SECRET} -o {FAST},ivgen-hash-alg=frob x.luks 64k",
      f"create -f luks {SECRET} -o {FAST},cipher-alg=cast5-128,cipher-mode=cbc x.luks 64k",
      f"create -f luks {SECRET} -o {FAST},cipher-alg=cast5-128,cipher-mode=cbc,ivgen-alg=essiv x.luks 64k",
      *[f"create -f luks {SECRET} -o {FAST},preallocation={mode} x.luks 64k" for mode in ("metadata", "full", "frob")],
      f"create -f luks {SECRET} -o key-secret=s,iter-time=0 x.luks 64k", f"create -f luks {SECRET} -o key-secret=s,iter-time=frob x.luks 64k",
      (f"create -f luks {SECRET} -o key-secret=s,iter-time=1000000000 x.luks 64k",
       accept("QEMU adds the text of an error number that says no more", "stderr")),
      rules=("luks", "unwritten"))

cases("luks/create/bad",
      "create -f luks x.luks 1M", "create -f luks -o key-secret=s x.luks 1M", f"create -f luks {SECRET} -o key-secret=t x.luks 1M",
      f"create -f luks {SECRET} -o {FAST} x.luks", f"create -f luks {SECRET} -o {FAST},frob=1 x.luks 1M",
      f"create -f luks {SECRET} -o {FAST} -b raw.img -F raw x.luks", "create -f luks --object secret,id=s,file=text -o key-secret=s x.luks 1M",
      ("create -f luks -o help x.luks", LATER), ("create -f luks -o help", LATER),
      )

cases("luks/look",
      "info vault.luks", "info --output=json vault.luks", "info essiv.luks", "info -f luks raw.img", "info -f raw vault.luks",
      (f"info {SECRET} --image-opts {LUKS}vault.luks", OWN_ORDER), f"map {SECRET} --image-opts {LUKS}vault.luks",
      f"map --output=json {SECRET} --image-opts {LUKS}vault.luks", "map vault.luks", "check vault.luks",
      f"check {SECRET} --image-opts {LUKS}vault.luks", "snapshot -l vault.luks", f"snapshot -l {SECRET} --image-opts {LUKS}vault.luks",
      "compare vault.luks vault.luks", f"compare {SECRET} --image-opts {LUKS}vault.luks driver=raw,file.filename=raw.img",
      f"compare {WRONG} --image-opts {LUKS}vault.luks driver=raw,file.filename=raw.img",
      "measure -O luks --size 1M", f"measure -O luks {SECRET} -o key-secret=s --size 1M", f"measure -O luks --output=json {SECRET} -o key-secret=s --size 3G",
      f"measure -O luks {SECRET} -o key-secret=s,cipher-alg=aes-128 raw.img", f"measure -O luks {SECRET} -o key-secret=s,cipher-alg=frob --size 1M",
      ("measure -O luks -o key-secret=s --size 1M", NO_LOOK_UP), f"measure -O qcow2 {SECRET} --image-opts {LUKS}vault.luks",
      rules=("luks",))

cases("luks/change",
      f"convert {SECRET} --image-opts {LUKS}vault.luks -O raw x.img", "convert vault.luks x.img", f"convert {WRONG} --image-opts {LUKS}vault.luks x.img",
      f"convert -f raw -O luks {SECRET} -o {FAST} raw.img x.luks", f"convert -O luks {SECRET} -o {FAST} data.qcow2 x.luks",
      f"convert -O luks {SECRET} -o {FAST},cipher-mode=cbc,ivgen-alg=essiv -m 1 odd.img x.luks", "convert -O luks raw.img x.luks",
      "convert -O luks -o key-secret=s raw.img x.luks", f"convert -c -O luks {SECRET} -o {FAST} raw.img x.luks",
      f"convert -n {SECRET} --target-image-opts raw.img {LUKS}vault.luks", f"convert -n {SECRET} -O luks raw.img vault.luks",
      f"resize {SECRET} --image-opts {LUKS}vault.luks 512k", f"resize --shrink {SECRET} --image-opts {LUKS}vault.luks 512k", "resize vault.luks 2M",
      f"dd {SECRET} --image-opts if={LUKS}vault.luks of=x.img bs=64k count=3",
      rules=("luks",))

_AMENDMENTS = ["state=frob", "state=active", "state=active,new-secret=x", "state=active,new-secret=t,old-secret=s", "state=active,new-secret=t,keyslot=8",
               "state=active,new-secret=t,keyslot=0", "keyslot=1", "state=inactive", "state=inactive,keyslot=9", "state=inactive,keyslot=0",
               "state=inactive,keyslot=1", "state=inactive,old-secret=s", "state=inactive,old-secret=s,keyslot=0", "state=inactive,old-secret=s,keyslot=1",
               "state=inactive,old-secret=t", "state=inactive,old-secret=x", "state=inactive,new-secret=t", "state=inactive,iter-time=10",
               "state=active,new-secret=t,iter-time=10", "state=active,new-secret=t,iter-time=10,keyslot=7"]

cases("luks/amend",
      *[f"amend {SECRET} {OTHER} --image-opts {LUKS}vault.luks -o {change}" for change in _AMENDMENTS],
      *[f"amend --force {SECRET} {OTHER} --image-opts {LUKS}vault.luks -o {change}"
        for change in ("state=inactive,keyslot=1", "state=active,new-secret=s,keyslot=0,iter-time=10")],
      "amend -o state=active vault.luks", "amend -f luks -o help vault.luks", f"amend {SECRET} --image-opts {LUKS}vault.luks -o frob=1",
      f"amend {SECRET} --image-opts {LUKS}vault.luks -o cipher-alg=aes-128", f"amend {WRONG} --image-opts {LUKS}vault.luks -o state=active,new-secret=s",
      rules=("luks",))

cases("encrypted/create",
      f"create -f qcow2 {SECRET} -o {QCOW2_FAST} x.qcow2 4M", f"create -f qcow2 {SECRET} -o encrypt.format=aes,encrypt.key-secret=s x.qcow2 4M",
      f"create -f qcow2 {SECRET} -o encryption=on,encrypt.key-secret=s x.qcow2 4M", f"create -f qcow2 {SECRET} -o {QCOW2_FAST},compat=0.10 x.qcow2 4M",
      *[f"create -f qcow2 {SECRET} -o {QCOW2_FAST},cluster_size={size} x.qcow2 4M" for size in ("512", "4k", "2M")],
      f"create -f qcow2 {SECRET} -o {QCOW2_FAST},encrypt.cipher-alg=serpent-256,encrypt.hash-alg=sha512 x.qcow2 4M",
      f"create -f qcow2 {SECRET} -o {QCOW2_FAST},encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv x.qcow2 4M",
      f"create -f qcow2 {SECRET} -o {QCOW2_FAST} -b raw.img -F raw x.qcow2",
      rules=("luks",))

cases("encrypted/create/bad",
      "create -f qcow2 -o encrypt.format=luks x.qcow2 1M", "create -f qcow2 -o encrypt.format=aes x.qcow2 1M", "create -f qcow2 -o encryption=on x.qcow2 1M",
      "create -f qcow2 -o encrypt.format=frob x.qcow2 1M", f"create -f qcow2 {SECRET} -o encrypt.key-secret=s x.qcow2 1M",
      f"create -f qcow2 {SECRET} -o encryption=on,encrypt.format=aes,encrypt.key-secret=s x.qcow2 1M",
      f"create -f qcow2 {SECRET} -o encrypt.format=aes,encrypt.key-secret=s,encrypt.cipher-alg=aes-256 x.qcow2 1M",
      *[f"create -f qcow2 {SECRET} -o {QCOW2_FAST},encrypt.{bad} x.qcow2 1M"
        for bad in ("cipher-alg=frob", "cipher-alg=des", "cipher-mode=frob", "ivgen-alg=frob", "hash-alg=frob", "ivgen-hash-alg=frob")],
      "create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=t x.qcow2 1M",
      )

cases("encrypted/look",
      "info vault.qcow2", "info --output=json vault.qcow2", "info aes.qcow2", "info --output=json aes.qcow2",
      (f"info {SECRET} --image-opts {QCOW2}vault.qcow2", OWN_ORDER), ("check vault.qcow2", NO_KEY_NEEDED), ("check aes.qcow2", NO_KEY_NEEDED),
      f"check {SECRET} --image-opts {QCOW2}vault.qcow2", f"check {SECRET} --image-opts {QCOW2}aes.qcow2",
      "map vault.qcow2", f"map {SECRET} --image-opts {QCOW2}vault.qcow2", f"map --output=json {SECRET} --image-opts {QCOW2}vault.qcow2",
      "compare vault.qcow2 aes.qcow2", f"compare {SECRET} --image-opts {QCOW2}vault.qcow2 {QCOW2}aes.qcow2",
      f"compare {SECRET} --image-opts {QCOW2}vault.qcow2 driver=raw,file.filename=raw.img",
      "measure -O qcow2 --size 1M -o encrypt.format=luks", f"measure -O qcow2 --size 1M {SECRET} -o encrypt.format=luks,encrypt.key-secret=s",
      f"measure -O qcow2 --size 1G {SECRET} -o encrypt.format=luks,encrypt.key-secret=s,cluster_size=4k", "measure -O qcow2 --size 1M -o encrypt.format=aes",
      f"measure -O qcow2 {SECRET} --image-opts {QCOW2}vault.qcow2",
      rules=("luks",))

cases("encrypted/change",
      f"convert {SECRET} --image-opts {QCOW2}vault.qcow2 -O raw x.img", f"convert {SECRET} --image-opts {QCOW2}aes.qcow2 -O raw x.img",
      f"convert {SECRET} --image-opts {QCOW2}vault.qcow2 -O qcow2 -o {QCOW2_FAST} x.qcow2", f"convert -O qcow2 {SECRET} -o {QCOW2_FAST} data.qcow2 x.qcow2",
      f"convert -O qcow2 {SECRET} -o encrypt.format=aes,encrypt.key-secret=s data.qcow2 x.qcow2", "convert -O qcow2 -o encrypt.format=luks raw.img x.qcow2",
      f"convert -c -O qcow2 {SECRET} -o {QCOW2_FAST} raw.img x.qcow2", f"convert -n {SECRET} --target-image-opts raw.img {QCOW2}vault.qcow2",
      f"convert -n -O qcow2 {SECRET} raw.img vault.qcow2", "convert vault.qcow2 x.img", f"convert {WRONG} --image-opts {QCOW2}vault.qcow2 x.img",
      f"resize {SECRET} --image-opts {QCOW2}vault.qcow2 8M", f"resize --shrink {SECRET} --image-opts {QCOW2}vault.qcow2 1M", "resize vault.qcow2 8M",
      f"snapshot -c one {SECRET} --image-opts {QCOW2}vault.qcow2", "snapshot -c one vault.qcow2",
      (f"rebase {SECRET} --image-opts -b raw.img -F raw {QCOW2}vault.qcow2", BESIDE), f"rebase {SECRET} --image-opts -u -b raw.img -F raw {QCOW2}vault.qcow2",
      rules=("luks", "date", "icount"))

cases("encrypted/amend",
      *[f"amend {SECRET} {OTHER} --image-opts {QCOW2}vault.qcow2 -o " + ",".join("encrypt." + word for word in change.split(","))
        for change in _AMENDMENTS],
      "amend -o encrypt.state=active vault.qcow2", f"amend {SECRET} --image-opts {QCOW2}aes.qcow2 -o encrypt.state=active,encrypt.new-secret=s",
      f"amend {SECRET} --image-opts {QCOW2}vault.qcow2 -o encrypt.format=luks", f"amend {SECRET} --image-opts {QCOW2}vault.qcow2 -o compat=0.10",
      f"amend {SECRET} --image-opts {QCOW2}vault.qcow2 -o refcount_bits=8",
      rules=("luks",))

programs("encrypted",
         f"{SECRET} --image-opts {QCOW2}vault.qcow2 -c 'read -P 1 64k 128k' -c 'read -P 2 1000 5000' -c 'write -P 3 70000 100000' -c 'read -P 3 70000 100000' -c info",
         f"{SECRET} --image-opts {QCOW2}aes.qcow2 -c 'read -P 1 64k 128k' -c 'write -P 3 70000 100000' -c 'write -z 1M 64k' -c 'read -P 0 1M 64k'",
         f"{SECRET} --image-opts {LUKS}vault.luks -c 'read -P 1 64k 128k' -c 'read -P 2 1000 5000' -c 'write -P 3 70000 100000' -c 'read -P 3 70000 100000' -c info",
         f"{SECRET} --image-opts {LUKS}vault.luks -c 'write -z 64k 64k' -c 'read -P 0 64k 64k' -c 'discard 64k 64k' -c 'write -P 1 0 1' -c 'read -P 1 0 1' -c flush",
         f"{SECRET} --image-opts {LUKS}essiv.luks -c 'write -P 9 0 1M' -c 'read -P 9 0 1M' -c length",
         "vault.qcow2 -c 'read 0 1k'", "vault.luks -c 'read 0 1k'", "aes.qcow2 -c 'read 0 1k'",
         f"{WRONG} --image-opts {QCOW2}vault.qcow2 -c 'read 0 1k'", f"{WRONG} --image-opts {LUKS}vault.luks -c 'read 0 1k'",
         f"{SECRET} --image-opts encrypt.format=aes,{QCOW2}vault.qcow2 -c 'read 0 1k'", f"{SECRET} --image-opts encrypt.format=luks,{QCOW2}aes.qcow2 -c 'read 0 1k'",
         f"{SECRET} --image-opts encrypt.format=luks,{QCOW2}data.qcow2 -c 'read 0 1k'", f"{SECRET} --image-opts {QCOW2}data.qcow2 -c 'read -P 1 64k 1k'",
         (f"{SECRET} --image-opts {QCOW2}vault.qcow2 -c 'write -c -P 7 1M 64k'", PLAIN),
         "--object secret,id=k,data=0123456789abcdef0123456789abcdef --object secret,id=s,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==,"
         f"format=base64,data=nXq4Kb6LKP0NHxVo2IQuAA== --image-opts {LUKS}vault.luks -c 'read -P 1 64k 1k'",
         f"--object secret,id=k,data=short --object secret,id=s,keyid=k,iv=AAAAAAAAAAAAAAAAAAAAAA==,data=x --image-opts {LUKS}vault.luks -c 'read 0 1k'",
         f"--object secret,id=k,data=x --object secret,id=s,keyid=k,data=x --image-opts {LUKS}vault.luks -c 'read 0 1k'",
         f"--object secret,id=k,data=x --object secret,id=s,keyid=k,iv=AAAA,data=x --image-opts {LUKS}vault.luks -c 'read 0 1k'",
         rules=("luks",))
