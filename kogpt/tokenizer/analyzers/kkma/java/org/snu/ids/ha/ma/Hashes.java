package org.snu.ids.ha.ma;

/**
 * Computes the hash code of a candidate without the string that Kkma builds for it.
 *
 * <p>Kkma takes String.hashCode of "string/tag+string/tag...!a!h!c!e". Candidates with equal hashes count as
 * equal, so the number must be the same. The hash of a concatenation follows from the hashes and lengths of its
 * parts. The decimal forms of the few tags that occur are cached; entries are immutable.
 */
final class Hashes {
    private static final Decimal[] DECIMALS = new Decimal[1 << 12];
    private static final int[] POWERS = new int[256];

    static {
        POWERS[0] = 1;
        for (int i = 1; i < POWERS.length; i++) {
            POWERS[i] = POWERS[i - 1] * 31;
        }
    }

    private Hashes() {}

    private static final class Decimal {
        final long number;
        final int hash;
        final int power;

        Decimal(long number) {
            String digits = Long.toString(number);
            this.number = number;
            this.hash = digits.hashCode();
            this.power = power(digits.length());
        }
    }

    static int power(int exponent) {
        int power = 1;
        for (; exponent >= POWERS.length; exponent -= POWERS.length - 1) {
            power *= POWERS[POWERS.length - 1];
        }
        return power * POWERS[exponent];
    }

    private static Decimal decimal(long number) {
        int place = (int) (number * 0x9E3779B97F4A7C15L >>> 52);
        Decimal decimal = DECIMALS[place];
        if (decimal == null || decimal.number != number) {
            DECIMALS[place] = decimal = new Decimal(number);
        }
        return decimal;
    }

    /** Extends a hash by a separator and a number. */
    static int append(int hash, char mark, long number) {
        Decimal decimal = decimal(number);
        return (hash * 31 + mark) * decimal.power + decimal.hash;
    }

    /** The hash of a morpheme's encoded form, "string/tag". */
    static int morpheme(String string, long info) {
        return append(string.hashCode(), '/', info);
    }

    /** 31 to the length of a morpheme's encoded form. */
    static int morphemePower(String string, long info) {
        return power(string.length() + 1) * decimal(info).power;
    }

    /** MCandidate.calcHashCode. */
    static void calcHashCode(MCandidate candidate) {
        int hash = 0;
        for (int i = 0, size = candidate.size(); i < size; i++) {
            Morpheme morpheme = candidate.get(i);
            String string = morpheme.string;
            hash = (i > 0 ? hash * 31 + '+' : 0) * power(string.length()) + string.hashCode();
            hash = append(hash, '/', morpheme.infoEnc);
        }
        hash = append(hash, '!', candidate.atlEnc);
        hash = append(hash, '!', candidate.hclEnc);
        hash = append(hash, '!', candidate.cclEnc);
        candidate.hashCode = append(hash, '!', candidate.eclEnc);
    }
}
