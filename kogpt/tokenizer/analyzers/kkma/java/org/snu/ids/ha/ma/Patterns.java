package org.snu.ids.ha.ma;

import java.util.ArrayList;
import java.util.Collections;
import java.util.IdentityHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;

/**
 * Kkma's 37 predefined token patterns, each tried only on texts that contain a character it needs.
 *
 * <p>Two of them are matched by hand, in linear time and without recursion. As regular expressions, words joined
 * by a hyphen are quadratic on a long run of letters, and laughter needs one stack frame per letter.
 */
final class Patterns {
    /** For each pattern, in Kkma's order, a character without which it cannot match. */
    private static final String NEEDED = "-ㅋ^0^^^_Tㅜㅡㅡㅠㅡㅡㅠㅠ--ㅡ>>>>¬¬^^^^____OO_";
    private static final char DIGIT = '0'; // stands for any
    private static final String LAUGHTER = "ㅋㅠㅜㅎ";
    private static final Map<TokenPattern, Integer> INDEX = new IdentityHashMap<TokenPattern, Integer>();

    static {
        for (TokenPattern pattern : Tokenizer.PREDEFINED_TOKEN_PATTERN) {
            INDEX.put(pattern, INDEX.size());
        }
        if (INDEX.size() != NEEDED.length()) {
            throw new ExceptionInInitializerError("Kkma's token patterns have changed");
        }
    }

    private Patterns() {}

    /** Replaces Tokenizer.find: the tokens of one pattern, which are replaced by blanks in the text. */
    static List<Token> find(StringBuffer text, TokenPattern pattern) {
        int index = INDEX.get(pattern);
        char needed = NEEDED.charAt(index);
        if (needed != DIGIT && needed != LAUGHTER.charAt(0) && text.indexOf(String.valueOf(needed)) < 0) {
            return Collections.emptyList();
        }
        List<Token> tokens = new ArrayList<Token>();
        if (needed == LAUGHTER.charAt(0)) {
            findLaughter(text, pattern, tokens);
        } else if (index == 0) {
            findHyphened(text, pattern, tokens);
        } else {
            Matcher matcher = pattern.pattern.matcher(text);
            while (matcher.find()) {
                take(text, matcher.start(), matcher.end(), pattern, tokens);
            }
        }
        return tokens;
    }

    private static void take(StringBuffer text, int start, int end, TokenPattern pattern, List<Token> tokens) {
        tokens.add(new Token(text.substring(start, end), pattern.charSetType, start));
        for (int i = start; i < end; i++) {
            text.setCharAt(i, ' ');
        }
    }

    /** Letters or digits, one hyphen, letters or digits. */
    private static void findHyphened(StringBuffer buffer, TokenPattern pattern, List<Token> tokens) {
        String text = buffer.toString(); // blanks are written only before this position
        int length = text.length();
        int start = 0; // of the run of letters and digits that ends at i
        for (int i = 0; i < length; i++) {
            char character = text.charAt(i);
            if (character == '-' && i > start && i + 1 < length && isLetterOrDigit(text.charAt(i + 1))) {
                int end = i + 1;
                while (end < length && isLetterOrDigit(text.charAt(end))) {
                    end++;
                }
                take(buffer, start, end, pattern, tokens);
                start = end;
                i = end - 1;
            } else if (!isLetterOrDigit(character)) {
                start = i + 1;
            }
        }
    }

    private static boolean isLetterOrDigit(char character) {
        return character >= 'a' && character <= 'z'
                || character >= 'A' && character <= 'Z'
                || character >= '0' && character <= '9';
    }

    /** Two or more of the four letters that express laughing and crying. */
    private static void findLaughter(StringBuffer buffer, TokenPattern pattern, List<Token> tokens) {
        String text = buffer.toString();
        int length = text.length();
        for (int i = 0; i < length; i++) {
            int end = i;
            while (end < length && LAUGHTER.indexOf(text.charAt(end)) >= 0) {
                end++;
            }
            if (end - i >= 2) {
                take(buffer, i, end, pattern, tokens);
            }
            i = Math.max(i, end);
        }
    }
}
