"""
The phrases of `injection.py`, by family, as regular expressions over folded text.

No expression looks ahead, and none repeats without bound: what matches a text also matches all its
continuations. That keeps findings independent of where a stream is cut, and matching linear.

Written in words: `«before»` stands for one of `WORDS["before"]`, `«2»` for up to two words of any
kind with the space after each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

WORDS: Mapping[str, str] = {
    "before": (
        "previous|prior|above|earlier|preceding|former|foregoing|past|original|initial|existing|precedent"
    ),
    "orders": (
        "instruct|prompt|directi(?:on|ve)|guideline|command|context|order|programming|rule|constraint|"
        "restriction|limitation|safeguard|assignment|message|text|request|policy|policies|conversation|"
        "training"
    ),
    "ignore": (
        "ignor(?:e|ing)|disregard(?:ing)?|forget|neglect|overrid(?:e|ing)|bypass|discard|drop|erase|"
        "(?:do not|don'?t|never|stop) (?:follow|obey|listen to|pay attention to)(?:ing)?"
    ),
    "all": "all |any |every |everything |the |of |your |my |these |those |what(?:ever)? ",
    "tell": (
        "reveal|show|print|repeat|output|display|tell|give|leak|share|disclose|expose|return|recite|"
        "translate|summari[sz]e|copy|write|list|spell|dump|echo|what (?:is|are|was|were)|provide|send|"
        "include|encode"
    ),
    "hidden": (
        "system|initial|original|hidden|secret|full|entire|exact|internal|developer|starting|first|"
        "previous|complete|current|whole|own"
    ),
    "prompt": (
        "prompt|instructions|system message|guidelines|directives|preamble|pre-?prompt|configuration|"
        "programming"
    ),
    "limits": (
        "rules|restrictions?|filters?|filtering|limitations?|limits|censorship|boundaries|guidelines|"
        "morals?|ethics|ethical|moral|guardrails|safeguards|constraints|content polic|policies|safety"
    ),
    "who": "you|it|he|she|they|ai|bot|gpt|assistant|model|character|who|that|which",
    "free": (
        "no|without(?: any)?|not bound by(?: any)?|free (?:from|of)(?: all| any)?|freed from|"
        "lacks?(?: any)?|not (?:limited|restricted|constrained) by(?: any)?|ignores?(?: all| any)?|"
        "bypass(?:es)?"
    ),
    "wild": "unfiltered|uncensored|amoral|unethical|immoral|unrestricted|unhinged|malicious",
    "code": (
        "base ?64|rot ?13|base ?32|base ?16|hex|morse|leet|ascii85|base2048|braille|nato|ecoji|atbash|"
        "encoded|uuencoded|decoded?"
    ),
    "urgent": "immediate|prompt|urgent|utmost|swift|unwavering|strict|instant|full",
    "heed": "action|attention|execution|compliance|response|focus|adherence|implementation",
    "vital": "imperative|critical|essential|vital|crucial|pivotal|key|urgent|additional|immediate",
}

_OVERRIDE = (
    "«ignore» «3»«before» «2»«orders»",
    "«ignore» (?:«all»){0,6}«before»(?: and |[.,:;!]| (?:say|tell|give|print|write|repeat|output))",
    "«ignore» everything (?:above|before|you|i|that|prior|else|said|written)",
    (
        "«ignore» (?:all |any |of ){0,6}(?:your |the system'?s? |openai'?s? |system )(?:[a-z]{1,16} )?"
        "(?:instructions|rules|guidelines|programming|prompt|polic|restrictions|directives|safe)"
    ),
    (
        "«ignore» (?:about )?all (?:the |of the |of your |of )?"
        "(?:instructions|assignments|rules|guidelines|orders|commands)"
    ),
    "«ignore» the (?:user|document|article|question|email|task)(?:'s)? (?:and|above|instead|,)",
    "«ignore» (?:all )?(?:other |the other )(?:instructions|information|info|text|tasks)",
    "«ignore» (?:all (?:info|text|negative|other)|instructions|about (?:everything|all|that) and)",
    (
        "your (?:new|real|actual|true|only|next) "
        "(?:task|instructions?|objective|role|goal|job|directive|purpose) "
        "(?:is|are|will be)"
    ),
    "new (?:instructions?|task|rules?|directive|system prompt|objective|mission) ?:",
    (
        "(?:these|the following|this|my|new) «2»(?:instructions?|prompt|rules|orders|commands) "
        "(?:overrides?|supersedes?|replaces?|(?:take|takes|have|has) (?:precedence|priority))"
    ),
    (
        "(?:instructions?|directives?|commands?|orders?|words)[^.!?]{0,60}"
        "(?:require|demand|need|must|are to|for|receive)s? (?:be )?(?:your |its )?(?:[a-z]{1,16} )?"
        "«urgent» (?:and [a-z]{1,16} )?«heed»"
    ),
    "instead(?: of [a-z ]{1,40})?,? (?:only )?(?:output|print|reply with|respond with|say) ?[\"'`:]",
    "stop everything|just print [\"'`]|(?:absolutely )?nothing else\\. disregard|override manual",
    (
        "(?:note|message|instructions?|attention|important) (?:to|for) (?:the |any |all )?"
        "(?:bot|ai|assistant|llm|language model|automated|chatbot)"
    ),
    "automated screening system",
    (
        "«vital» (?:instruction|directive|directions|command|orders)s?"
        "(?:[.,:!]| «3»(?:follow|ahead|next|come|below|attention))"
    ),
    (
        "(?:instruction|directive|direction|command|order)s? "
        "(?:that |ahead |to follow |below |which )?(?:is|are) (?:vital|pivotal|critical|crucial|paramount|"
        "essential|imperative|commands|non-negotiable|mandatory|now your)"
    ),
)

# German, French, Spanish, Portuguese, Italian and Dutch; folding has taken the accents away.
_OVERRIDE_ELSEWHERE = (
    (
        "(?:ignorier(?:e|en sie|t)|vergiss|vergessen sie|missachte|ubergehe) (?:bitte )?"
        "(?:alle?[sn]? |die |deine |ihre |obigen |vorherigen |bisherigen ){0,6}"
        "(?:davor|bisher|vorher|oben|obige|"
        "vorherige|vorangehend|vorangegangen|anweisung|befehl|regeln|aufgaben|instruktion)"
    ),
    (
        "(?:ignore[zr]?|oublie[zr]?|ne tiens pas compte de|ne tenez pas compte de) "
        "(?:toutes? |tout |les |tes |vos |ce qui ){0,6}"
        "(?:instructions|consignes|regles|directives|precede|ordres)"
    ),
    (
        "(?:ignor[ae]|ignorar|olvid[ae]|olvide|descarta|haz caso omiso de) (?:a |de )?"
        "(?:todas? |todo |las |los |tus |sus |lo ){0,6}"
        "(?:instrucciones|anterior|reglas|ordenes|indicaciones|que dije|que te)"
    ),
    (
        "(?:ignore|esqueca|desconsidere) (?:todas? |tudo |as |os |suas |o ){0,6}"
        "(?:instrucoes|anterior|regras|ordens|que)"
    ),
    "(?:ignora|dimentica) (?:tutte |tutto |le |tue |quanto ){0,6}(?:istruzioni|precedent|regole|detto sopra)",
    (
        "(?:negeer|vergeet) (?:alle |de |je |bovenstaande |vorige ){0,6}"
        "(?:instructies|bovenstaande|voorgaande|opdrachten)"
    ),
    "rivela (?:le tue|il tuo)|du bist (?:jetzt|nun|ab jetzt) |ab jetzt bist du ",
    "zeige? (?:mir )?(?:alle )?dein(?:e|en)? (?:system)?(?:prompt|anweisung|instruktion)",
)

_OVERRIDE_CHINESE = (
    (
        "(?:忽略|无视|忘记|忘掉)[^。!?]{0,8}(?:以上|之前|上面|先前|所有|前面)[^。!?]{0,8}"
        "(?:指令|提示|要求|规则|内容|指示)"
    ),
    "从现在(?:起|开始),?你(?:是|将|要)",
    "输出你的(?:系统)?提示|你的(?:系统提示|初始指令|提示词)",
)

_PROMPT_EXTRACTION = (
    (
        "«tell» (?:me |us |out |back |back to me |verbatim |exactly |down ){0,6}"
        "(?:all |of |everything in ){0,6}"
        "(?:your|the (?:above|hidden|secret|system)|system) (?:«hidden» ){0,3}«prompt»"
    ),
    (
        "«tell» «4»(?:system prompt|system message|initial prompt|prompt text|hidden prompt|context window|"
        "pre-?prompt|initial instructions)"
    ),
    (
        "repeat (?:all |everything |the ){0,6}(?:words?|text|sentences?|lines?|content)? ?"
        "(?:that (?:is|are) )?above"
    ),
    "repeat «4»(?:word|letter|phrase|text)s?[^.!?]{0,60}(?:forever|indefinitely|endlessly)",
    "repeat (?:this|the|our) (?:entire |whole |full )?conversation",
    "what (?:instructions|rules) (?:were|have) you|what were you told",
    (
        "(?:tell|share|give|confirm|reveal|know|what is|what's|what was|what would|disclose|remind) «4»"
        "(?:your|our) (?:[a-z]{1,12} )?(?:password|passcode|passphrase|credentials|secret key)"
    ),
    "(?:what is|what's|tell me|reveal) the (?:secret|system|admin) (?:password|key|code)",
    (
        "(?:reveal|tell me|give me|what is|share) (?:your|the) (?:secret|password|hidden) ?"
        "(?:key|word|flag|password|code)"
    ),
    "(?:begin|start)(?:s|ing)? with [\"'`]you are",
)

_ROLE_HIJACK = (
    "do anything now|dan mode|dan,? (?:which|who)|(?:act|behave|respond|answer) as (?:a )?dan[ .,!]",
    (
        "(?:developer|dev|god|jailbreak|jailbroken|sudo|unrestricted|opposite|evil|uncensored|anti) "
        "mode(?: (?:enabled|activated|on|output|v[0-9])|[.,!])"
    ),
    "(?:enable|activate|enter|switch to|go into|unlock) (?:the )?[a-z]{1,16} mode|jailbr(?:eak|oken)",
    "«who»'?(?:s|re|ve)? «5»«free» (?:the |your |its )?(?:[a-z]{1,16},? ){0,2}«limits»",
    (
        "(?:pretend|imagine|act|behave|respond|answer|speak) «6»(?:no|without(?: any)?) "
        "(?:[a-z]{1,16} ){0,2}«limits»"
    ),
    "from now on,? (?:you|act|respond|answer|ignore|i want you|we)",
    (
        "you (?:are|will|must|should) (?:now|henceforth) (?:act|be|become|play|respond|pretend|going to|"
        "an? (?:unrestricted|unfiltered|evil|ai|dan)|in|operating|the ai|free|immersed|role)"
    ),
    (
        "«wild» (?:and [a-z]{1,16} )?(?:ai|chatbot|bot|assistant|language model|llm|response|version of|gpt|"
        "character|output)"
    ),
    (
        "(?:never|cannot|can'?t|will not|won'?t|must not|not allowed to|do not|don'?t) (?:ever )?"
        "(?:refuse|decline|reject|deny) (?:to |a |an |any |my |the |your |or |what)"
    ),
    "(?:stay|remain|always be) in character|break(?:ing)? (?:of )?character|act as two entities",
    "(?:read|sing|tell) me (?:[a-z0-9]{1,12} ){1,6}(?:keys|codes) to (?:fall asleep|sleep)",
    (
        "(?:always|must|will) (?:answer|respond|reply|comply) [a-z ]{0,30}"
        "(?:no matter|regardless|unconditionally)"
    ),
    (
        "(?:do not|don'?t|never|without) (?:include |add |give |mention |any |adding |including |giving |"
        "ethical |moral ){0,6}(?:disclaimers?|warnings?|moral lectures?)"
        "[^.]{0,40}(?:ethic|legal|illegal|moral)"
    ),
    (
        "(?:disregard|regardless of|ignor[a-z]{1,4}) (?:any |all |the |its ){0,6}(?:possible |potential )?"
        "(?:ethical|moral|legality|harmful|illegal|immoral|consequences)"
    ),
    "insert (?:your )?prompt(?: here)?\\]",
)

_DELIMITER = (
    "<\\|(?:im_start|im_end|system|endoftext|end_of_turn|start_header_id|eot_id|assistant|user)\\|>",
    "<<sys>>|\\[/?system\\]|\\[/inst\\]",
    "</?(?:system|instructions?|user_input|system_prompt|interaction-config|/user)>",
    (
        "#{2,4} ?(?:system|instructions?|new instructions?|end of|response|user)"
        "(?: ?:| (?:prompt|message|input))"
    ),
    (
        "(?:end|start|begin(?:ning)?) (?:of )?(?:the )?(?:system|user) "
        "(?:prompt|input|message|instructions?|query)"
    ),
    "[\"']role[\"'] ?: ?[\"']system[\"']",
    "\\[(?:system|admin|developer) ?(?:message|note|override|instruction)?\\]",
    "(?:system|admin|developer) (?:override|note|instruction|alert|notice) ?:",
)

_EXFILTRATION = (
    "!\\[[^\\]]{0,40}\\][(\\[][^\\])]{0,120}(?:\\{|\\[(?:info|data)|<(?:info|data))",
    "(?:respond|reply|responding|answer)(?:ing)? with (?:exactly )?[\"'`]?!\\[",
    "javascript:[a-z]",
    "replac(?:e|ing) \\[?[a-z]{1,10}\\]? with (?:a |the |an )?url[- ]?encoded",
    (
        "(?:send|forward|post|exfiltrate|email|upload) «8»"
        "(?:conversation|chat history|password|api key|credential|customer list|secret)s? «3»"
        "(?:to|at) (?:https?://|[a-z0-9.]{1,30}@)"
    ),
)

_ENCODED = (
    (
        "«code»[^.!?]{0,80}(?:follow|execute|obey|comply|carry out) «3»"
        "(?:instruction|output|it|message|command|them|result)"
    ),
    "decod(?:e|ing) (?:this|the following|it)[^.!?]{0,40}(?:follow|execute|do |respond|answer|say)",
    "decode the following [a-z0-9-]{1,20} (?:in|and)|(?:encoded|decoded) string ?:",
    (
        "(?:what does this (?:say|mean)|decode this|convert this)[^.!?]{0,20}"
        "(?:base|rot13|hex|morse|ascii|encod)"
    ),
    (
        "(?:base64|rot13|base32|base16|uuencode|quoted-printable|base2048)(?:-encoded)? "
        "(?:text|string|format|decoder|message|code) ?:"
    ),
)

_WORD_START = "(?<![a-z0-9])"


def patterns() -> dict[str, re.Pattern[str]]:
    """Each family's rules as one compiled expression."""
    return {
        "override": _compiled((*_OVERRIDE, *_OVERRIDE_ELSEWHERE), _OVERRIDE_CHINESE),
        "prompt_extraction": _compiled(_PROMPT_EXTRACTION),
        "role_hijack": _compiled(_ROLE_HIJACK),
        "delimiter": _compiled((), _DELIMITER),
        "exfiltration": _compiled((), _EXFILTRATION),
        "encoded": _compiled(_ENCODED),
    }


def _compiled(at_words: Sequence[str], anywhere: Sequence[str] = ()) -> re.Pattern[str]:
    parts = [f"{_WORD_START}(?:{'|'.join(at_words)})"] if at_words else []
    return re.compile(re.sub("«([^»]+)»", _spelled, "|".join([*parts, *anywhere])))


def _spelled(mark: re.Match[str]) -> str:
    name = mark[1]
    return f"(?:[^ ]{{1,24}} ){{0,{name}}}" if name.isdigit() else f"(?:{WORDS[name]})"
