# What zsh offers for words that are being typed: zsh -f complete.zsh SCRIPT WORDS...  Prints a line for each WORDS.
# zsh completes in terminals only, so a second zsh runs in one of zpty's. There compadd, the command that adds the offers
# to zsh's list, prints them.
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal "PROMPT=; stty -echo; autoload -Uz compinit; compinit -D -u; source ${(q)1}; compdef _zimage zimage"
zpty -w terminal 'compadd() {
    [[ " $* " == *" -"[OAD]" "* ]] && { builtin compadd "$@"; return }
    local -a offers; builtin compadd -O offers "$@"; for offer in $offers; do print -r -- "<$offer>"; done }'
zpty -w terminal 'complete() { _main_complete; print -r -- "<<end>>" }; zle -C offer complete-word complete
    bindkey "^I" offer; bindkey "^U" kill-whole-line; print REA""DY'
zpty -r -m terminal line '*READY*'
shift
for words in "$@"; do
    offers=()
    zpty -n -w terminal "$words"$'\t'
    while zpty -r terminal line && [[ $line != *'<<end>>'* ]]; do
        [[ $line == *'<'*'>'* ]] && offers+="${${line#*<}%>*}"
    done
    print -r -- $offers
    zpty -n -w terminal $'\025'
done
