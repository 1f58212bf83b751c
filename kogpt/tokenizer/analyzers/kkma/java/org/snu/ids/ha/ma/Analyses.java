package org.snu.ids.ha.ma;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Packs the analysis of a token into a record of TokenCache, and unpacks it at another place of a text.
 *
 * <p>Format: byte number of morphemes; for each its number in INFOS, byte index from the token's, byte length,
 * characters (for a space its number in CONDITIONS instead); byte number of expressions, mostly 1; for each byte length,
 * byte number of candidates; for each candidate its number in CONDITIONS, two bytes found in the dictionary, two
 * log-probabilities, the hash, and two lists with a byte for the length: the lengths of the parts between spaces, and the
 * morphemes by place in the first list.
 */
final class Analyses {
    private static final int ROOM = 1 << 13;
    private static final int SLACK = 512; // more than what is written without asking for room
    private static final int MOST = 127;
    private static final int SPACE = Interned.MOST;
    private static final Interned INFOS = new Interned(1);
    static final Interned CONDITIONS = new Interned(5);

    private final ByteBuffer record = ByteBuffer.allocate(ROOM);
    private final List<Morpheme> morphemes = new ArrayList<Morpheme>();
    private boolean fits;

    /** The analysis of a token after the one that the context holds; null if the cache has none. */
    static List<MExpression> find(Token token, Context context) {
        String string = token.string;
        ByteBuffer record = string.length() > TokenCache.LONGEST ? null : TokenCache.find(string, context);
        if (record == null) {
            return null;
        }
        Morpheme[] morphemes = new Morpheme[record.get()];
        for (int i = 0; i < morphemes.length; i++) {
            morphemes[i] = getMorpheme(record, token.index);
        }
        int count = record.get();
        List<MExpression> expressions = new ArrayList<MExpression>(count);
        int from = 0;
        for (int i = 0; i < count; i++) {
            int length = record.get();
            String surface = length == string.length() ? string : string.substring(from, from + length);
            MExpression expression = new MExpression(surface);
            for (int j = 0, size = record.get(); j < size; j++) {
                expression.add(j, new CachedCandidate(surface, morphemes, record));
            }
            expressions.add(expression);
            from += length;
        }
        return expressions;
    }

    private static Morpheme getMorpheme(ByteBuffer record, int index) {
        int info = record.getShort();
        if (info == SPACE) {
            int number = record.getShort();
            return new MorphemeSpace(
                    CONDITIONS.part(number, 0),
                    CONDITIONS.part(number, 1),
                    CONDITIONS.part(number, 2),
                    CONDITIONS.part(number, 3),
                    CONDITIONS.part(number, 4));
        }
        int offset = record.get();
        char[] characters = new char[record.get()];
        for (int i = 0; i < characters.length; i++) {
            characters[i] = record.getChar();
        }
        Morpheme morpheme = new Morpheme(new String(characters), INFOS.part(info, 0));
        morpheme.index = index + offset;
        return morpheme;
    }

    /** Adds the analysis of a token to the cache. What does not fit the format is left out. */
    void add(Token token, Context context, List<MExpression> expressions) {
        int length = token.string.length();
        if (length > TokenCache.LONGEST) {
            return;
        }
        fits = true;
        record.clear().position(TokenCache.HEADER);
        record.put((byte) length);
        for (int i = 0; i < length; i++) {
            record.putChar(token.string.charAt(i));
        }
        if (!context.write(record)) {
            return;
        }
        collect(expressions);
        putMorphemes(token.index);
        put(expressions.size());
        int from = 0;
        for (MExpression expression : expressions) {
            put(expression.exp.length());
            put(expression.size());
            check(token.string.startsWith(expression.exp, from));
            from += expression.exp.length();
            for (int i = 0, size = expression.size(); fits && i < size; i++) {
                putCandidate(expression.exp, expression.get(i));
            }
        }
        if (fits && from == length) {
            record.flip();
            TokenCache.add(token.string, record);
        }
    }

    private void check(boolean fit) {
        fits &= fit;
    }

    private void put(int number) {
        check(number >= 0 && number <= MOST && record.remaining() > SLACK);
        if (fits) {
            record.put((byte) number);
        }
    }

    private void putNumber(int number) {
        check(number >= 0 && record.remaining() > SLACK);
        if (fits) {
            record.putShort((short) number);
        }
    }

    private static boolean isSpace(Morpheme morpheme) {
        return morpheme instanceof MorphemeSpace;
    }

    private static int conditions(MorphemeSpace space) {
        return CONDITIONS.number(space.atlEnc, space.hclEnc, space.bclEnc, space.cclEnc, space.eclEnc);
    }

    private static boolean equal(Morpheme one, Morpheme two) {
        if (isSpace(one) || isSpace(two)) {
            return isSpace(one) && isSpace(two) && conditions((MorphemeSpace) one) == conditions((MorphemeSpace) two);
        }
        return one.infoEnc == two.infoEnc && one.index == two.index && one.string.equals(two.string);
    }

    private int place(Morpheme morpheme) {
        for (int i = 0, size = morphemes.size(); i < size; i++) {
            if (equal(morphemes.get(i), morpheme)) {
                return i;
            }
        }
        return -1;
    }

    /** Lists the different morphemes of all candidates. */
    private void collect(List<MExpression> expressions) {
        morphemes.clear();
        for (MExpression expression : expressions) {
            for (int i = 0, size = expression.size(); i < size && morphemes.size() <= MOST; i++) {
                MCandidate candidate = expression.get(i);
                for (int j = 0, count = candidate.size(); j < count; j++) {
                    if (place(candidate.get(j)) < 0) {
                        morphemes.add(candidate.get(j));
                    }
                }
            }
        }
    }

    private void putMorphemes(int index) {
        put(morphemes.size());
        for (int i = 0, size = morphemes.size(); fits && i < size; i++) {
            Morpheme morpheme = morphemes.get(i);
            if (isSpace(morpheme)) {
                putNumber(SPACE);
                putNumber(conditions((MorphemeSpace) morpheme));
                continue;
            }
            check(morpheme.charSet == CharSetType.HANGUL);
            putNumber(INFOS.number(morpheme.infoEnc));
            put(morpheme.index - index);
            put(morpheme.string.length());
            for (int k = 0, length = morpheme.string.length(); fits && k < length; k++) {
                record.putChar(morpheme.string.charAt(k));
            }
        }
    }

    private void putCandidate(String surface, MCandidate candidate) {
        int size = candidate.size();
        check(size > 0 && candidate.firstMorp == candidate.get(0) && candidate.lastMorp == candidate.get(size - 1));
        check(!isSpace(candidate.firstMorp)); // the index of a space depends on its origin, and is read in the first place
        putNumber(CONDITIONS.number(
                candidate.atlEnc, candidate.hclEnc, candidate.bclEnc, candidate.cclEnc, candidate.eclEnc));
        if (!fits) {
            return;
        }
        record.put(candidate.realDicLen).put(candidate.candDicLen);
        record.putFloat(candidate.lnprOfSpacing).putFloat(candidate.lnprOfTagging).putInt(candidate.hashCode);
        put(candidate.expList.size());
        int from = 0;
        for (String part : candidate.expList) {
            put(part.length());
            check(!part.isEmpty() && surface.startsWith(part, from));
            from += part.length();
        }
        check(from == surface.length() && from > 0);
        put(size);
        for (int i = 0; i < size; i++) {
            put(place(candidate.get(i)));
        }
    }
}
