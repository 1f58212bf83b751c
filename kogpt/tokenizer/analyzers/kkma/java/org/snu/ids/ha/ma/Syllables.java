package org.snu.ids.ha.ma;

import org.snu.ids.ha.util.Hangul;
import org.snu.ids.ha.util.StringSet;

/** Caches split syllables, and holds Kkma's two sets of vowels as arrays. */
final class Syllables {
    private static final int SYLLABLE = 0xAC00;
    private static final int SYLLABLES = 0xD7A4 - SYLLABLE;
    private static final int JAMO = 0x3130;
    private static final int JAMOS = 0x60;

    private static final Hangul[] SPLIT = new Hangul[SYLLABLES];
    private static final boolean[] POSITIVE = new boolean[JAMOS];
    private static final boolean[] DOUBLE = new boolean[JAMOS];

    static {
        for (int i = 0; i < SYLLABLES; i++) {
            SPLIT[i] = Hangul.split((char) (SYLLABLE + i));
        }
        for (int i = 0; i < JAMOS; i++) {
            POSITIVE[i] = Hangul.MO_POSITIVE_SET.contains((char) (JAMO + i));
            DOUBLE[i] = Hangul.MO_DOUBLE_SET.contains((char) (JAMO + i));
        }
    }

    private Syllables() {}

    /** Replaces Hangul.split. The result is shared and must not be changed. */
    static Hangul split(char character) {
        int i = character - SYLLABLE;
        return i >= 0 && i < SYLLABLES ? SPLIT[i] : Hangul.split(character);
    }

    /** Replaces StringSet.contains for Kkma's two sets of vowels. */
    static boolean contains(StringSet set, char character) {
        int i = character - JAMO;
        if (i < 0 || i >= JAMOS) {
            return set.contains(character);
        }
        if (set == Hangul.MO_POSITIVE_SET) {
            return POSITIVE[i];
        }
        return set == Hangul.MO_DOUBLE_SET ? DOUBLE[i] : set.contains(character);
    }
}
