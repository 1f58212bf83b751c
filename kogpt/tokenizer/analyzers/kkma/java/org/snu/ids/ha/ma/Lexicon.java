package org.snu.ids.ha.ma;

import java.util.Arrays;
import org.snu.ids.ha.dic.Dictionary;

/**
 * Kkma's dictionary in arrays instead of 400,000 expressions as objects. LexiconMaker makes the arrays.
 *
 * <p>Kkma gives every caller a copy of an expression, so it is built from the arrays when it is asked for. Reading
 * the arrays from a file takes a hundredth of the time that Kkma needs for its texts. Most substrings of a word are
 * in no dictionary: 2^22 bits reject these without access to the table.
 *
 * <p>An entry is a sequence of characters: length and characters of the word; 2 x number of candidates, + 1 if one
 * is a noun; probability of the spacing (two, as a float). Each candidate: number of its shape; hash code (two);
 * probability of the tagging (two); number of its surfaces, or 0 for the word itself, and each surface; number of
 * its morphemes, and each one's number of its tag and string. A string is 0 for the word, otherwise 1 and its number
 * (two).
 */
final class Lexicon {
    /** Numbers of a shape: the conditions, and the lengths in one. */
    static final int SHAPE = 6;
    static final long[] FILTER = new long[1 << 16];
    static final int[] PLACES = new int[1 << 20]; // 1 + where the entry is, by the word's hash code

    static char[] entries;
    static long[] shapes;
    static long[] tags;
    static String[] strings;

    private Lexicon() {}

    /** Reads or writes all of it. */
    static void pass(ArrayFile file) {
        file.longs(FILTER);
        file.ints(PLACES);
        entries = file.chars(entries);
        shapes = file.longs(shapes);
        tags = file.longs(tags);
        strings = file.strings(strings);
    }

    static int bit(int hash) {
        return hash * 0x9E3779B1 >>> 10;
    }

    static int place(int hash) {
        return hash * 0x9E3779B1 >>> 12;
    }

    /** Replaces Dictionary.getInstance in the analysis: Kkma's own is never loaded for it. */
    static Dictionary dictionary() {
        return null;
    }

    /** Replaces Dictionary.getMExpression. */
    static MExpression find(Dictionary none, String word) {
        int at = entry(word);
        return at < 0 ? null : new Reader(word, at).expression();
    }

    /** Replaces Dictionary.containNoun. */
    static boolean containNoun(Dictionary none, String word) {
        int at = entry(word);
        return at >= 0 && (entries[at] & 1) != 0;
    }

    /** Where the entry of a word goes on behind the word, or -1. */
    private static int entry(String word) {
        int hash = word.hashCode();
        int bit = bit(hash);
        if ((FILTER[bit >>> 6] & 1L << bit) == 0) {
            return -1;
        }
        for (int place = place(hash); PLACES[place] != 0; place = place + 1 & PLACES.length - 1) {
            int at = PLACES[place] - 1;
            if (isWord(word, at)) {
                return at + 1 + word.length();
            }
        }
        return -1;
    }

    private static boolean isWord(String word, int at) {
        int length = word.length();
        if (entries[at] != length) {
            return false;
        }
        for (int i = 0; i < length; i++) {
            if (entries[at + 1 + i] != word.charAt(i)) {
                return false;
            }
        }
        return true;
    }

    /** Builds the expression of an entry, equal to MExpression.copy of Kkma's. */
    private static final class Reader {
        private final String word;
        private int at;

        Reader(String word, int at) {
            this.word = word;
            this.at = at;
        }

        MExpression expression() {
            MCandidate[] candidates = new MCandidate[entries[at++] >>> 1];
            float spacing = Float.intBitsToFloat(pair());
            for (int i = 0; i < candidates.length; i++) {
                candidates[i] = candidate(spacing);
            }
            MExpression expression = new MExpression(word);
            expression.addAll(Arrays.asList(candidates));
            return expression;
        }

        private MCandidate candidate(float spacing) {
            MCandidate candidate = new MCandidate();
            int shape = SHAPE * entries[at++];
            candidate.atlEnc = shapes[shape];
            candidate.hclEnc = shapes[shape + 1];
            candidate.cclEnc = shapes[shape + 2];
            candidate.bclEnc = shapes[shape + 3];
            candidate.eclEnc = shapes[shape + 4];
            long lengths = shapes[shape + 5];
            candidate.realDicLen = (byte) lengths;
            candidate.candDicLen = (byte) (lengths >>> 8);
            candidate.numOfApndblMC = (byte) (lengths >>> 16);
            candidate.hashCode = pair();
            candidate.lnprOfTagging = Float.intBitsToFloat(pair());
            candidate.lnprOfSpacing = spacing;
            int surfaces = entries[at++];
            if (surfaces == 0) {
                candidate.expList.add(word);
            }
            for (int i = 0; i < surfaces; i++) {
                candidate.expList.add(string());
            }
            for (int morphemes = entries[at++]; morphemes > 0; morphemes--) {
                Morpheme morpheme = new Morpheme();
                morpheme.charSet = CharSetType.HANGUL;
                morpheme.infoEnc = tags[entries[at++]];
                morpheme.string = string();
                candidate.add(morpheme);
            }
            return candidate;
        }

        private int pair() {
            at += 2;
            return entries[at - 2] << 16 | entries[at - 1];
        }

        private String string() {
            if (entries[at] == 0) {
                at++;
                return word;
            }
            at += 3;
            return strings[entries[at - 2] << 16 | entries[at - 1]];
        }
    }
}
