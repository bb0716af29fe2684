"""The judgement as JUnit XML for continuous integration servers: a test case for each check."""

import re
import xml.etree.ElementTree

from sanity.result import Verdict

TAGS = {Verdict.FAIL: "failure", Verdict.INCONCLUSIVE: "error"}


def junit(judgement):
    """Returns the XML of a `Judgement` as text.

    A check that saw masked gradients is a failure, an inconclusive one is an error, and one that was left out or only
    reports is skipped. Characters that XML forbids, in a file name for instance, become question marks.
    """
    results = judgement.results
    counts = {
        "tests": len(results),
        "failures": sum(result.verdict is Verdict.FAIL for result in results),
        "errors": sum(result.verdict is Verdict.INCONCLUSIVE for result in results),
        "skipped": sum(result.verdict in (Verdict.SKIPPED, Verdict.REPORTED) for result in results),
        "time": round(sum(result.seconds for result in results), 2),
    }
    attributes = {name: str(value) for name, value in counts.items()}
    suites = xml.etree.ElementTree.Element("testsuites", attributes)
    suite = xml.etree.ElementTree.SubElement(suites, "testsuite", {"name": "sanity", **attributes})
    for result in results:
        about = {"classname": "sanity", "name": result.name, "time": f"{result.seconds:.2f}"}
        case = xml.etree.ElementTree.SubElement(suite, "testcase", about)
        text = _allowed(f"{result.explanation} {result.remedy}".strip())
        if result.verdict in TAGS:
            xml.etree.ElementTree.SubElement(case, TAGS[result.verdict], {"message": text})
        elif result.verdict is not Verdict.PASS:
            xml.etree.ElementTree.SubElement(case, "skipped", {"message": f"{result.verdict.value}: {text}"})
    output = xml.etree.ElementTree.SubElement(suite, "system-out")
    output.text = _allowed(judgement.sentence)
    xml.etree.ElementTree.indent(suites)
    # With encoding="unicode" the XML would name the encoding of the locale, which is not that of the file.
    return xml.etree.ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True).decode("utf-8") + "\n"


def _allowed(text):
    """Returns `text` without the characters that XML 1.0 forbids, which no escape makes valid."""
    return _FORBIDDEN.sub("?", text)


_FORBIDDEN = re.compile("[^\t\n -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
