"""Paths: what is volatile in them, what kind of place they name, and which places are sensitive."""

import re
import zlib
from functools import lru_cache
from itertools import pairwise

LONGEST = 80
"""A longer segment is cut, with a checksum of all of it: state stays small whatever names somebody makes."""

_UUID = re.compile(r"[0-9a-fA-F]{8}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{4}-?[0-9a-fA-F]{12}")
_DATE = re.compile(r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d(?:[T_-]?[0-2]\d[-:.]?[0-5]\d(?:[-:.]?[0-5]\d)?Z?)?")
_HEX = re.compile(
    r"(?<![A-Za-z0-9])(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{7,}(?![A-Za-z0-9])|(?<![A-Za-z0-9])[0-9A-F]{12,}(?![A-Za-z0-9])"
)
_NUMBER = re.compile(r"\d+(?:\.\d+)*")
_TEMP = re.compile(
    r"^(?P<keep>tmp\.?|temp\.?|sed|cc|sort|pip-[a-z-]+-|npm-|sess_|go-build|vi|\.(?:.*\.))(?P<rand>[A-Za-z0-9_]{6,})(?P<tail>(?:\.\w{1,5})?)$"
)
_TEMP_STARTS = ("tmp", "temp", "sed", "cc", "sort", "pip-", "npm-", "sess_", "go-build", "vi", ".")
"""One of these begins whatever _TEMP matches."""
_DIGIT = re.compile(r"[0-9]")
_VOWEL = re.compile(r"[aeiouyAEIOUY]")
_RUN = re.compile(r"[A-Za-z0-9]{6,}")
DEEPEST = 12
"""Segments of a path that are looked at."""


def _random(run: str) -> bool:
    """Is this run of letters and digits a random name? Letters and digits mixed, case that jumps, or no vowels."""
    if run.isdigit():
        return False
    if run.isalpha() and (run.islower() or run[1:].islower()):
        return len(run) >= 8 and not _VOWEL.search(run)
    switches = sum(a.isdigit() != b.isdigit() for a, b in pairwise(run))
    if switches >= 3 or (switches >= 2 and not run[-1].isdigit()):
        return True
    jumps = sum(a.islower() and b.isupper() for a, b in pairwise(run))
    falls = sum(a.isupper() and b.isupper() for a, b in pairwise(run))
    if jumps >= 2 and (falls >= 1 or len(run) <= 8):
        return True
    return len(run) >= 8 and not _VOWEL.search(run)


@lru_cache(maxsize=16_384)
def segment(text: str) -> str:
    """One path segment with its volatile parts replaced; what stays says what kind of thing it is.

    >>> segment("report-2026-11-23.csv"), segment("0f8fad5b-d9cb-469f-a165-70867728950e.jpg"), segment("4711")
    ('report-<date>.csv', '<uuid>.jpg', '<n>')
    >>> segment("tmpk3j2_h1a"), segment("sedAb3dE9"), segment("a8f3d2c1.bin"), segment("customers.db")
    ('tmp<r>', 'sed<r>', '<hex>.bin', 'customers.db')
    """
    if len(text) > LONGEST:
        text = f"{text[:48]}~{zlib.crc32(text.encode('utf-8', 'replace')):08x}"
    digits = _DIGIT.search(text) is not None
    if not digits and text.islower() and len(text) < 8:
        return text
    if (
        text.startswith(_TEMP_STARTS)
        and (match := _TEMP.match(text))
        and not match["rand"].isdigit()
        and not _HEX.fullmatch(text)
    ):
        rand = match["rand"]
        if match["keep"][:3] in ("tmp", "tem") or _random(rand) or any(c.isdigit() or c.isupper() for c in rand):
            return f"{segment(match['keep']) if len(match['keep']) > 12 else match['keep']}<r>{match['tail']}"
    long = _RUN.search(text) is not None
    if digits:
        if len(text) >= 32:
            text = _UUID.sub("<uuid>", text)
        if len(text) >= 7:
            if "19" in text or "20" in text:
                text = _DATE.sub("<date>", text)
            if long:
                text = _HEX.sub("<hex>", text)
    if long and "<" not in text:
        text = _RUN.sub(_shown, text)
    return _NUMBER.sub("<n>", text) if digits else text


def _shown(run: re.Match[str]) -> str:
    return "<r>" if _random(run[0]) else run[0]


@lru_cache(maxsize=16_384)
def segments(path: str) -> tuple[str, ...]:
    """
    >>> segments("/var/lib/app/1234/data.bin"), segments("notes.txt")
    (('var', 'lib', 'app', '<n>', 'data.bin'), ('.', 'notes.txt'))
    """
    name = path[path.rfind("/") + 1 :]
    folder = _folder(path[: len(path) - len(name)])
    if not name or len(folder) >= DEEPEST + (path[0] != "/"):
        return folder
    return (*folder, segment(name))


@lru_cache(maxsize=4096)
def _folder(path: str) -> tuple[str, ...]:
    """What `segments` says of a directory, which many files share; it ends with a slash."""
    head: tuple[str, ...] = () if path.startswith("/") else (".",)
    return head + tuple([segment(part) for part in path.split("/") if part][:DEEPEST])


SECRETS = (
    r"^/etc/(?:g?shadow-?|sudoers|security/opasswd|krb5\.keytab)$|^/etc/sudoers\.d/",
    r"^/(?:var/)?run/secrets/|^/etc/secrets?/|/secrets?/[^/]+$|/\.secrets?/",
    r"/\.ssh/(?!.*\.pub$|known_hosts|config$)[^/]+$|/ssh_host_[^/]*_key$",
    r"/\.(?:aws|azure|gnupg|config/gcloud)/|/\.(?:docker/config\.json|kube/config|netrc|pgpass|my\.cnf|git-credentials|npmrc|pypirc|vault-token|htpasswd)$",
    r"(?:^|/)\.env(?:\.[\w-]+)?$|/[\w.-]+\.env$",
    r"\.(?:key|p12|pfx|jks|keystore|kdbx|ovpn)$|/(?:privkey|private|server-key|tls|client-key)[\w-]*\.pem$",
    r"/(?i:(?:[^/]*[._-])?(?:secrets?|credentials?|passwords?|passwd|token|api[_-]?key|private[_-]?key|service[_-]?account)(?:[._-][^/]*)?)$",
    r"/\.\w*_history$",
    r"^/proc/(?:\d+|self|thread-self)/(?:environ|mem)$|^/proc/\d+/(?:maps|smaps|pagemap|auxv|syscall|stack)$|^/proc/kcore$|^/dev/(?:k?mem|port)$",
    r"^/dev/(?:[svh]d[a-z]|nvme\d|xvd[a-z]|dm-\d|mapper/(?!control))",
)  # fmt: skip
_SECRET = re.compile("|".join(f"(?:{p})" for p in SECRETS))
_PUBLIC = re.compile(
    r"^/etc/passwd-?$|^/(?:usr|lib\d*|bin|sbin)/(?!local/(?:app|etc))|^/etc/(?:ssl/certs|pam\.d|ca-certificates|systemd)/|^/(?:sys|dev/pts)/"
    r"|/(?:site|dist)-packages/|/node_modules/|\.(?:pyc?|js|html?|css|so|rb|go|class)$"
)

STARTUP = (
    r"^/etc/(?:cron[^/]*|systemd|init\.d|rc\w*\.d|profile\.d|ld\.so\.conf\.d|pam\.d|update-motd\.d|apt/apt\.conf\.d|sudoers\.d|xdg/autostart)(?:/|$)",
    r"^/etc/(?:rc\.local|profile|bash\.bashrc|zsh/zshrc|environment|inittab|ld\.so\.preload|ld\.so\.conf|passwd-?|g?shadow-?|group|sudoers|crontab|anacrontab|ssh/sshd_config)$",
    r"^/(?:usr/)?lib/systemd/|^/var/spool/(?:cron|at)(?:/|$)|^/run/systemd/system/",
    r"/\.(?:bashrc|profile|bash_profile|bash_login|bash_logout|bash_aliases|zshrc|zprofile|kshrc|config/(?:autostart|systemd|fish)/.*)$",
    r"/\.ssh/(?:authorized_keys2?|rc|environment|config)$|/(?:docker-)?entrypoint(?:\.d/.*|\.sh|\.py)?$",
    r"/(?:sitecustomize|usercustomize)\.py$|/(?:site|dist)-packages/[^/]+\.pth$|/\.git/hooks/",
)  # fmt: skip
_STARTUP = re.compile("|".join(f"(?:{p})" for p in STARTUP))

_CODE = re.compile(
    r"^/(?:usr|bin|sbin|lib\d*|boot|etc|opt|app)(?:/|$)|^/proc/sys/|^/sys/|/(?:www|htdocs|public_html|webapps)/"
)
_SYSTEM = re.compile(
    r"^/(?:usr|lib\d*|bin|sbin|sys|proc)(?:/|$)|^/etc/(?:ld\.so|ssl|ca-certificates|localtime|timezone|locale|nsswitch|host|resolv|gai|"
    r"services|protocols|mime|os-release|debian_version|alpine-release|inputrc|terminfo|magic|python|perl|java|fonts|machine-id)"
    r"|/(?:site|dist)-packages/|/__pycache__/|/node_modules/|^/\.dockerenv$"
)
_NULL = re.compile(
    r"^/dev/(?:null|zero|full|u?random|tty|ptmx|pts/\d+|std(?:in|out|err)|fd/\d+|console|log)$|^/proc/self/fd/"
)
_TEMPDIR = re.compile(
    r"/\.?cache/|/\.npm/_|/\.local/(?:share|state)/|^/(?:var/)?tmp(?:/|$)|^/dev/shm(?:/|$)|^/run/(?!secrets)(?:shm|lock|user|[^/]*)"
)
_DATA = re.compile(
    r"^/(?:var/(?:lib|log|cache|spool|run|opt|www)|data|srv|mnt|media|storage|backup\w*|logs?|cache|uploads?|volumes?)(?:/|$)"
)
_WRITABLE = re.compile(
    r"^/(?:tmp|var/tmp|dev/shm|run|var/run|dev/mqueue|proc/\w+/fd|mnt|media|data|uploads?|var/(?:lib|cache|log|spool|www))(?:/|$)|/\.[^/]+(?:/|$)|^\."
)
_RUNNABLE = re.compile(
    r"\.(?:sh|bash|so(?:\.\d+)*|php\d?|phtml|jspx?|aspx?|cgi|pl|py|rb|elf|service|timer|ko|bin|exe|jar|war|desktop)$"
)
_LOG = re.compile(r"^/var/log/|/logs?/|\.log(?:\.\d+)?(?:\.gz)?$|_history$|/(?:[wbu]tmp|lastlog)$")


_SECRET_ROOTS = ("/etc/", "/proc/", "/dev/", ".env")
_SECRET_ENDS = (".env", ".key", ".pem", ".p12", ".pfx", ".jks", ".keystore", ".kdbx", ".ovpn")
_SECRET_WORDS = ("/.", "secret", "ssh_host", "pass", "token", "cred", "priv", "api", "service")
_STARTUP_ROOTS = ("/etc/", "/lib/systemd/", "/usr/lib/systemd/", "/var/spool/", "/run/systemd/")
_STARTUP_WORDS = ("/.", "entrypoint", "customize.py", "-packages/")
_SYSTEM_ROOTS = ("/usr", "/lib", "/bin", "/sbin", "/sys", "/proc", "/etc/", "/.dockerenv")
_SYSTEM_WORDS = ("-packages/", "/__pycache__/", "/node_modules/")
"""A path that begins with none of the roots, ends with none of the ends and holds none of the words cannot match the
pattern of that name: most can be told so in a tenth of the time."""


def _may_be_secret(path: str) -> bool:
    low = path.casefold()
    return low.rstrip("\n").endswith(_SECRET_ENDS) or _has(low, _SECRET_ROOTS, _SECRET_WORDS)


def _has(path: str, roots: tuple[str, ...], words: tuple[str, ...]) -> bool:
    if path.startswith(roots):
        return True
    for word in words:  # noqa: SIM110
        if word in path:
            return True
    return False


@lru_cache(maxsize=16_384)
def place(path: str) -> str:
    """Which kind of place this is: secret, startup, null, system, code, temp, data or other. The first that fits.

    >>> place("/run/secrets/db"), place("/etc/cron.d/x"), place("/usr/lib/libc.so"), place("/tmp/x"), place("/dev/null")
    ('secret', 'startup', 'system', 'temp', 'null')
    >>> place("/etc/passwd"), place("/srv/app/.env"), place("/var/lib/app/f"), place("/app/tokenizer.json")
    ('startup', 'secret', 'data', 'code')
    """
    if path.startswith(("/dev/", "/proc/")) and _NULL.match(path):
        return "null"
    if _may_be_secret(path) and _SECRET.search(path) and not _PUBLIC.search(path):
        return "secret"
    if _has(path, _STARTUP_ROOTS, _STARTUP_WORDS) and _STARTUP.search(path):
        return "startup"
    if _has(path, _SYSTEM_ROOTS, _SYSTEM_WORDS) and _SYSTEM.search(path):
        return "system"
    if _TEMPDIR.match(path):
        return "temp"
    if _CODE.match(path):
        return "code"
    return "data" if _DATA.match(path) else "other"


def is_system(path: str) -> bool:
    """World-readable parts of the system that any program reads."""
    return place(path) == "system"


@lru_cache(maxsize=4096)
def is_writable_place(path: str) -> bool:
    """A place programs are not usually run from.

    >>> is_writable_place("/tmp/.x/k"), is_writable_place("/usr/bin/wget"), is_writable_place("/app/server")
    (True, False, False)
    """
    return bool(_WRITABLE.search(path))


@lru_cache(maxsize=4096)
def is_scratch(path: str) -> bool:
    """Under a directory in a temporary place that was made for one run: of a build, a test, an installer.

    >>> is_scratch("/tmp/go-build1234/b001/exe/main"), is_scratch("/tmp/.x/k"), is_scratch("/tmp/tmpab12_cd")
    (True, False, False)
    """
    return bool(re.match(r"^/(?:var/)?tmp/[^/]*<[^/]*/|^/(?:var/)?tmp/.*/[^/]*<[^/]*/", "/" + "/".join(segments(path))))


def is_runnable_name(path: str) -> bool:
    return bool(_RUNNABLE.search(path))


def is_log(path: str) -> bool:
    return bool(_LOG.search(path))


@lru_cache(maxsize=4096)
def never_collapses(directory: str) -> bool:
    """Directories whose entries are each worth knowing by name.

    >>> never_collapses("/etc/cron.d"), never_collapses("/root/.ssh"), never_collapses("/data/uploads")
    (True, True, False)
    """
    return bool(
        re.search(
            r"^/(?:etc|root|boot|bin|sbin|usr/(?:local/)?s?bin|run/secrets|var/run/secrets|var/spool/cron)(?:/|$)|/\.ssh(?:/|$)|^/home/[^/]*$|^/$",
            directory,
        )
        or place(directory + "/x") in ("secret", "startup")
    )
