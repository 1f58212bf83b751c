package org.snu.ids.ha.ma;

import java.lang.reflect.Field;
import java.util.Map;
import org.snu.ids.ha.dic.Dictionary;

/**
 * A bit filter before Kkma's dictionary, because most substrings of a word are not in it.
 *
 * <p>2^22 bits reject most of these without access to the (synchronized) table. Loading also trims the
 * dictionary's lists, which have room for ten entries and hold one.
 */
final class Lexicon {
    private static final long[] FILTER = new long[1 << 16];

    static {
        try {
            Field field = Dictionary.class.getDeclaredField("table");
            field.setAccessible(true);
            @SuppressWarnings("unchecked")
            Map<String, MExpression> table = (Map<String, MExpression>) field.get(Dictionary.getInstance());
            for (Map.Entry<String, MExpression> entry : table.entrySet()) {
                int bit = bit(entry.getKey());
                FILTER[bit >>> 6] |= 1L << bit;
                trim(entry.getValue());
            }
        } catch (ReflectiveOperationException error) {
            throw new ExceptionInInitializerError(error);
        }
    }

    private Lexicon() {}

    private static void trim(MExpression expression) {
        expression.trimToSize();
        for (MCandidate candidate : expression) {
            candidate.trimToSize();
            candidate.expList.trimToSize();
        }
    }

    private static int bit(String string) {
        return string.hashCode() * 0x9E3779B1 >>> 10;
    }

    /** Replaces Dictionary.getMExpression. */
    static MExpression find(Dictionary dictionary, String string) {
        int bit = bit(string);
        return (FILTER[bit >>> 6] & 1L << bit) == 0 ? null : dictionary.getMExpression(string);
    }
}
