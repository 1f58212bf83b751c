package org.snu.ids.ha.ma;

import org.snu.ids.ha.constants.POSTag;

/**
 * The running score of a sequence of morphemes, updated with each morpheme. It equals what
 * MCandidate.calcLnprOfTagging, calcDicLen, and calcHashCode compute in three passes over the complete list.
 */
class Score {
    static final int SPACE = 0;
    private static final int VERB = 1;
    private static final int COPULA = 2;
    private static final int PRE_ENDING = 3;
    private static final int ENDING = 4;
    private static final int PARTICLE = 5;
    private static final int UNKNOWN = 6;
    private static final int OTHER = 7;

    // state since the last space
    private static final int WORD = 1;
    private static final int SEEN_PARTICLE = 2;
    private static final int STEM = 4;
    private static final int SEEN_PRE_ENDING = 8;
    private static final int SEEN_ENDING = 16;
    private static final int[] SEEN = {
        0, STEM | WORD, STEM | WORD | SEEN_PARTICLE, SEEN_PRE_ENDING | WORD, SEEN_ENDING | WORD, SEEN_PARTICLE,
        WORD, WORD
    };
    private static final int SPACE_HASH = Hashes.morpheme(" ", POSTag.SW);
    private static final int SPACE_POWER = Hashes.morphemePower(" ", POSTag.SW);

    float lnpr;
    int hash;
    byte real;
    byte candidate;
    boolean empty = true;
    boolean first = true; // no morpheme yet that is not a space
    boolean joined = true; // no space since the last morpheme
    int tag; // of the last morpheme, as Tables numbers it
    boolean suffix; // the last morpheme is one
    private int seen;
    private int unknown; // characters of unknown words since the last space
    private int ended;

    /** Copies another score. */
    final void set(Score other) {
        lnpr = other.lnpr;
        hash = other.hash;
        real = other.real;
        candidate = other.candidate;
        empty = other.empty;
        first = other.first;
        joined = other.joined;
        tag = other.tag;
        suffix = other.suffix;
        seen = other.seen;
        unknown = other.unknown;
    }

    /** The class of a morpheme for the length found in the dictionary. */
    static int kind(long number) {
        if ((number & POSTag.V) > 0) {
            return number == POSTag.VCP ? COPULA : VERB;
        }
        if ((number & POSTag.EP) > 0) {
            return PRE_ENDING;
        }
        if ((number & POSTag.EM) > 0) {
            return ENDING;
        }
        if ((number & POSTag.J) > 0) {
            return PARTICLE;
        }
        return number == POSTag.UN ? UNKNOWN : OTHER;
    }

    static boolean isSuffix(long number) {
        return (number & POSTag.XS) > 0;
    }

    /** ㄴ, ㅁ, and ㄹ join a suffix at no cost. */
    static boolean isLight(String string) {
        if (string.length() != 1) {
            return false;
        }
        char character = string.charAt(0);
        return character == 'ㄴ' || character == 'ㅁ' || character == 'ㄹ';
    }

    final void hash(int morphemeHash, int power) {
        hash = empty ? morphemeHash : (hash * 31 + '+') * power + morphemeHash;
        empty = false;
    }

    /** Adds a space after a part of the surface with this length. */
    final void space(int surface) {
        hash(SPACE_HASH, SPACE_POWER);
        close(surface);
        joined = false;
    }

    /** Ends a part. Its length counts as found if the part is complete. */
    final void close(int surface) {
        boolean bare = (seen & SEEN_PRE_ENDING) != 0 && (seen & STEM) != 0 != ((seen & SEEN_ENDING) != 0);
        boolean complete = !bare && ((seen & SEEN_PARTICLE) == 0 || (seen & WORD) != 0);
        if (complete) {
            real += (byte) (surface - unknown);
        } else {
            candidate += (byte) (surface - unknown);
        }
        seen = 0;
        unknown = 0;
    }

    /** Ends the sequence after a part of the surface with this length. */
    final void end(int surface) {
        ended = unknown;
        close(surface);
    }

    /** An unknown word with only a particle counts as a guess. */
    final void guess() {
        candidate += (byte) (ended - 1);
    }

    final void see(int kind, int length) {
        seen |= SEEN[kind];
        if (kind == UNKNOWN) {
            unknown += length;
        }
    }

    /** Adds a morpheme; `slot` and `tag` are its place in Tables. */
    final void add(int slot, int tag, float tagging, boolean light, boolean suffix) {
        lnpr += tagging;
        if (!first) {
            lnpr += transition(slot, tag, light);
        }
        step(tag, suffix);
    }

    final float transition(int slot, int tag, boolean light) {
        if (!joined) {
            return Tables.transition(Tables.AFTER_SPACE, this.tag, slot, tag);
        }
        return suffix && light ? 0f : Tables.transition(Tables.WITHIN, this.tag, slot, tag);
    }

    /** The state after a morpheme. */
    final void step(int tag, boolean suffix) {
        joined |= !first;
        first = false;
        this.tag = tag;
        this.suffix = suffix;
    }
}
